"""The Gauss-Newton matrix by hand, and beside the Hessian."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import CrossEntropy, cross_entropy, layer_traces
from qgen_tf.measures.gauss_newton import (
    _root_product,
    layer_gauss_newton_traces,
)
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES

_GENERATOR = np.random.default_rng(1)
FIRST = _GENERATOR.normal(size=(5, 4)).astype(np.float32)
SECOND = _GENERATOR.normal(size=(4, 3)).astype(np.float32)
NORMS = (IMAGES**2).sum(axis=1)


def _within(trace, truth):
    assert 0 < trace.standard_error < 0.2 * truth
    assert abs(trace.trace - truth) < 4 * trace.standard_error


def test_a_linear_model_is_exact_in_every_probe_of_single_examples():
    (trace,) = layer_gauss_newton_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(batch_size=1),
        closed_forms.quadratic,
        num_probes=2,
    )
    # the curvature in the outputs is 1, and so is the square of a sign
    diagonal = np.repeat((IMAGES**2).mean(axis=0)[:, None], 4, axis=1)
    assert (trace.layer, trace.variable) == ("dense0", "kernel")
    assert (trace.num_weights, trace.num_probes) == (20, 2)
    assert trace.trace == pytest.approx(diagonal.sum(), rel=1e-5)
    assert trace.standard_error < 1e-6
    assert trace.samples.shape == (2, 32)
    np.testing.assert_allclose(trace.diagonal, diagonal, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [8, 20, 32])
def test_what_examples_have_in_common_cancels(batch_size):
    (trace,) = layer_gauss_newton_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(batch_size=batch_size),
        closed_forms.quadratic,
        num_probes=100,
    )
    _within(trace, 4 * NORMS.mean())
    assert trace.diagonal.sum() == pytest.approx(trace.trace, rel=1e-5)
    truth = np.repeat((IMAGES**2).mean(axis=0)[:, None], 4, axis=1)
    # an entry that all examples share spreads like a squared normal variable
    np.testing.assert_allclose(trace.diagonal, truth, rtol=5 * 0.02**0.5)


@pytest.mark.parametrize(
    "loss_fn", [cross_entropy, lambda *pair: cross_entropy(*pair)]
)
def test_softmax_regression_has_the_trace_of_its_hessian(loss_fn):
    (trace,) = layer_gauss_newton_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(),
        loss_fn,
        num_probes=100,
    )
    logits = (IMAGES @ FIRST).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    variances = shares * (1 - shares)
    _within(trace, (NORMS * variances.sum(axis=1)).mean())
    truth = (IMAGES**2).T @ variances / len(IMAGES)
    np.testing.assert_allclose(trace.diagonal, truth, rtol=5 * 0.02**0.5)


def _curvature(loss_fn, labels, outputs):
    """Returns `R R'`, [batch, classes, classes]."""
    classes = outputs.shape[-1]
    columns = [
        _root_product(
            loss_fn, labels, outputs, tf.one_hot([k] * len(labels), classes)
        )
        for k in range(classes)
    ]
    root = np.stack(columns, axis=-1)
    return root @ root.swapaxes(1, 2)


def test_square_roots_of_curvatures_by_hand():
    labels = tf.constant([0, 1])
    logits = tf.constant([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]])
    shares = tf.nn.softmax(logits).numpy()
    truth = np.eye(3) * shares[:, None] - shares[:, :, None] * shares[:, None]
    for loss_fn in (cross_entropy, lambda *pair: cross_entropy(*pair)):
        np.testing.assert_allclose(
            _curvature(loss_fn, labels, logits), truth, atol=1e-6
        )
    # a logit of two classes: p (1 - p)
    p = 1 / (1 + np.exp(-np.array([0.5, -2.0])))
    np.testing.assert_allclose(
        _curvature(cross_entropy, labels, tf.constant([[0.5], [-2.0]])),
        (p * (1 - p))[:, None, None],
        rtol=1e-5,
    )
    # -log p, of the probability itself: 1 / p^2
    np.testing.assert_allclose(
        _curvature(
            CrossEntropy(from_logits=False),
            labels,
            tf.constant([[0.5, 0.5], [0.8, 0.2]]),
        ),
        [[[4, 0], [0, 0]], [[0, 0], [0, 25]]],
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        _curvature(closed_forms.quadratic, labels, logits),
        [np.eye(3)] * 2,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "loss_fn",
    [closed_forms.linear, lambda *pair: -closed_forms.quadratic(*pair)],
)
def test_no_curvature_and_negative_curvature_are_zero(loss_fn):
    (trace,) = layer_gauss_newton_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(),
        loss_fn,
        num_probes=2,
    )
    assert trace.trace == trace.standard_error == 0.0
    assert not trace.diagonal.any()


def test_a_relu_leaves_no_residual_term_in_a_layer():
    network = closed_forms.network(FIRST, SECOND)
    first, second = layer_gauss_newton_traces(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        num_probes=100,
    )
    hidden = IMAGES @ FIRST
    _within(first, (NORMS * ((hidden > 0) @ (SECOND**2).sum(axis=1))).mean())
    _within(second, 3 * (np.maximum(hidden, 0) ** 2).sum(axis=1).mean())
    for trace, hessian in zip(
        layer_gauss_newton_traces(
            network, closed_forms.dataset(), num_probes=100
        ),
        layer_traces(network, closed_forms.dataset(), num_probes=100),
        strict=True,
    ):
        error = np.hypot(trace.standard_error, hessian.standard_error)
        assert error < 0.15 * trace.trace
        assert abs(trace.trace - hessian.trace) < 4 * error


def test_a_curved_activation_leaves_one():
    network = closed_forms.network(
        FIRST,
        SECOND,
        between=lambda: keras.layers.Activation("tanh"),
    )
    settings = {"loss_fn": closed_forms.quadratic, "num_probes": 100}
    trace, _ = layer_gauss_newton_traces(
        network, closed_forms.dataset(), **settings
    )
    hidden = np.tanh(IMAGES @ FIRST)
    slopes = 1 - hidden**2
    _within(trace, (NORMS * (slopes**2 @ (SECOND**2).sum(axis=1))).mean())
    hessian, _ = layer_traces(network, closed_forms.dataset(), **settings)
    gradients = hidden @ SECOND @ SECOND.T
    bends = -2 * hidden * slopes
    residual = (NORMS * (gradients * bends).sum(axis=1)).mean()
    error = np.hypot(trace.standard_error, hessian.standard_error)
    assert abs(residual) > 5 * error
    assert abs(hessian.trace - trace.trace - residual) < 4 * error


def test_standard_error_is_the_spread_over_seeds():
    network, dataset = closed_forms.network(FIRST), closed_forms.dataset()

    def found(seed):
        return layer_gauss_newton_traces(
            network, dataset, num_probes=6, seed=seed
        )[0]

    traces = [found(seed) for seed in range(16)]
    assert found(5) == traces[5]
    values = [trace.trace for trace in traces]
    assert len(set(values)) == len(values)
    error = np.mean([trace.standard_error for trace in traces])
    # 16 seeds know the spread to 18 %
    assert np.std(values, ddof=1) == pytest.approx(error, rel=0.5)


def test_fake_quant_operations_have_slopes_if_no_curvature():
    model = closed_forms.network(FIRST, SECOND)
    quantized = tfmot.quantization.keras.quantize_model(model)
    quantized(IMAGES, training=True)
    before = [value.tobytes() for value in quantized.get_weights()]
    traces = layer_gauss_newton_traces(
        quantized, closed_forms.dataset(), num_probes=2
    )
    assert [value.tobytes() for value in quantized.get_weights()] == before
    assert all(trace.trace > 0 for trace in traces)


def test_only_the_chosen_variables_count():
    network = closed_forms.network(FIRST, SECOND)
    settings = {"num_probes": 2, "seed": 3}
    both = layer_gauss_newton_traces(
        network, closed_forms.dataset(), **settings
    )
    (second,) = layer_gauss_newton_traces(
        network,
        closed_forms.dataset(),
        variables=lambda model: model.trainable_weights[1:],
        **settings,
    )
    assert second.layer == "dense1"
    assert second.trace == pytest.approx(both[1].trace, rel=1e-5)


def test_settings_data_and_models_out_of_range():
    network = closed_forms.network(FIRST)
    with pytest.raises(errors.ConfigError, match="num_probes >= 2, not 1"):
        layer_gauss_newton_traces(network, closed_forms.dataset(), num_probes=1)
    with pytest.raises(errors.DataError, match="empty"):
        layer_gauss_newton_traces(network, closed_forms.dataset().take(0))
    network.layers[-1].kernel.assign(FIRST * np.nan)
    with pytest.raises(errors.ModelError, match="'net' are not finite"):
        layer_gauss_newton_traces(network, closed_forms.dataset())
    inputs = keras.Input([5])
    bare = keras.Model(inputs, keras.layers.ReLU()(inputs), name="bare")
    with pytest.raises(errors.ModelError, match="'bare' has no weight"):
        layer_gauss_newton_traces(bare, closed_forms.dataset())
