"""Traces of Hessians that are known, and loud failure where there is none."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import layer_traces, perturbations
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
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


def test_a_diagonal_hessian_is_exact_in_every_probe():
    images = np.eye(5, dtype=np.float32)[_GENERATOR.integers(5, size=32)]
    images *= _GENERATOR.normal(size=(32, 1)).astype(np.float32)
    (trace,) = layer_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(images),
        closed_forms.quadratic,
        num_probes=2,
    )
    diagonal = np.repeat((images**2).mean(axis=0)[:, None], 4, axis=1)
    assert (trace.layer, trace.variable) == ("dense0", "kernel")
    assert (trace.num_weights, trace.num_probes) == (20, 2)
    assert trace.trace == pytest.approx(diagonal.sum(), rel=1e-5)
    assert trace.standard_error < 1e-6
    np.testing.assert_allclose(trace.diagonal, diagonal, rtol=1e-5)


def test_a_dense_hessian_is_met_within_its_standard_error():
    (trace,) = layer_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(),
        closed_forms.quadratic,
        num_probes=200,
    )
    _within(trace, 4 * NORMS.mean())
    assert trace.diagonal.sum() == pytest.approx(trace.trace, rel=1e-5)
    truth = np.repeat((IMAGES**2).mean(axis=0)[:, None], 4, axis=1)
    np.testing.assert_allclose(trace.diagonal, truth, atol=0.3)


def test_one_probe_serves_the_blocks_of_all_layers():
    net = closed_forms.network(
        FIRST,
        SECOND,
        between=lambda: keras.layers.Activation("linear"),
    )
    first, second = layer_traces(
        net,
        closed_forms.dataset(),
        closed_forms.quadratic,
        num_probes=300,
    )
    assert (first.layer, second.layer) == ("dense0", "dense1")
    _within(first, NORMS.mean() * (SECOND**2).sum())
    _within(second, 3 * ((IMAGES @ FIRST) ** 2).sum(axis=1).mean())


def test_a_relu_bends_only_where_it_passes():
    first, second = layer_traces(
        closed_forms.network(FIRST, SECOND),
        closed_forms.dataset(),
        closed_forms.quadratic,
        num_probes=300,
    )
    hidden = IMAGES @ FIRST
    gates = (hidden > 0) @ (SECOND**2).sum(axis=1)
    _within(first, (NORMS * gates).mean())
    _within(second, 3 * (np.maximum(hidden, 0) ** 2).sum(axis=1).mean())


def test_softmax_regression():
    (trace,) = layer_traces(
        closed_forms.network(FIRST), closed_forms.dataset(), num_probes=200
    )
    logits = (IMAGES @ FIRST).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    _within(trace, (NORMS * (shares * (1 - shares)).sum(axis=1)).mean())


@pytest.mark.parametrize("batch_size", [3, 32])
def test_the_trace_is_that_of_all_batches(batch_size):
    (trace,) = layer_traces(
        closed_forms.network(FIRST),
        closed_forms.dataset(batch_size=batch_size),
        closed_forms.quadratic,
        num_probes=40,
    )
    _within(trace, 4 * NORMS.mean())
    assert trace.samples.shape == (40, -(-32 // batch_size))
    assert trace.trace == pytest.approx(trace.samples.sum(axis=1).mean())


def test_the_noise_of_batches_averages_out():
    # the same batch again and again: the same Hessian, and 25 times the signs
    once, often = (
        layer_traces(
            closed_forms.network(FIRST),
            closed_forms.dataset(batch_size=32).repeat(count),
            closed_forms.quadratic,
            num_probes=40,
        )[0]
        for count in (1, 25)
    )
    _within(often, 4 * NORMS.mean())
    # 40 probes know the spread to 11 %
    ratio = once.standard_error / often.standard_error
    assert ratio == pytest.approx(5, rel=0.35)


def test_standard_error_is_the_spread_over_seeds():
    network, dataset = closed_forms.network(FIRST), closed_forms.dataset()
    traces = [
        layer_traces(
            network, dataset, closed_forms.quadratic, num_probes=8, seed=seed
        )[0]
        for seed in range(16)
    ]
    again = layer_traces(
        network, dataset, closed_forms.quadratic, num_probes=8, seed=5
    )
    assert again == [traces[5]]
    values = [trace.trace for trace in traces]
    assert len(set(values)) == len(values)
    error = np.mean([trace.standard_error for trace in traces])
    # 16 seeds know the spread to 18 %
    assert np.std(values, ddof=1) == pytest.approx(error, rel=0.5)


def test_batch_norm_is_in_inference_and_nothing_moves():
    inputs = keras.Input([5])
    x = keras.layers.Dense(4, use_bias=False)(inputs)
    norm = keras.layers.BatchNormalization(epsilon=0.0)
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(norm(x)))
    gamma, variance = np.array([[1, -2, 3, 0.5], [4, 1, 0.25, 9]], np.float32)
    norm.set_weights([gamma, np.ones(4), np.ones(4), variance])
    before = [value.tobytes() for value in model.get_weights()]
    (trace,) = layer_traces(
        model, closed_forms.dataset(), closed_forms.quadratic, num_probes=200
    )
    assert [value.tobytes() for value in model.get_weights()] == before
    _within(trace, NORMS.mean() * (gamma**2 / variance).sum())
    # folded, the factor is part of the weight
    (folded,) = layer_traces(
        inference_model(model).model,
        closed_forms.dataset(),
        closed_forms.quadratic,
        num_probes=200,
    )
    _within(folded, NORMS.mean() * 4)


def test_a_quantizer_is_the_identity_inside_and_constant_outside():
    kernel = np.sign(FIRST)  # levels -1, 0 and 1, and a step size of 1
    kernel[0] = 0
    network = quantize_model(
        closed_forms.network(kernel),
        BitScheme(2, 32, overrides=(("*", 2, 32),)),
    )
    settings = {"loss_fn": closed_forms.quadratic, "num_probes": 200}
    (latent,) = layer_traces(network, closed_forms.dataset(), **settings)
    assert (latent.layer, latent.variable) == ("quant_dense0", "kernel")
    _within(latent, 4 * NORMS.mean())
    (deployed,) = layer_traces(
        inference_model(network).model, closed_forms.dataset(), **settings
    )
    assert deployed.trace == pytest.approx(latent.trace, rel=1e-5)
    perturbations.kernels(network)[0].assign(3 * kernel)
    (clipped,) = layer_traces(network, closed_forms.dataset(), **settings)
    # only the row of zeros is left, whose block is diagonal
    truth = 4 * (IMAGES[:, 0] ** 2).mean()
    assert clipped.trace == pytest.approx(truth, rel=1e-5)


def test_a_network_with_quantized_activations_has_curvature():
    network = quantize_model(
        closed_forms.network(FIRST, SECOND), BitScheme(4, 4)
    )
    calibrate(network, closed_forms.dataset())
    for model in (network, inference_model(network).model):
        traces = layer_traces(model, closed_forms.dataset(), num_probes=4)
        assert all(trace.trace > 0 for trace in traces)


def test_only_the_chosen_variables_count():
    network = closed_forms.network(FIRST, SECOND)
    (trace,) = layer_traces(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        variables=lambda model: model.trainable_weights[1:],
        num_probes=200,
    )
    assert trace.layer == "dense1"
    hidden = np.maximum(IMAGES @ FIRST, 0)
    _within(trace, 3 * (hidden**2).sum(axis=1).mean())


def test_fake_quant_operations_have_no_curvature():
    model = closed_forms.network(FIRST, SECOND)
    quantized = tfmot.quantization.keras.quantize_model(model)
    quantized(IMAGES, training=True)
    with pytest.raises(
        errors.ModelError,
        match="dense0/kernel, quant_dense1/kernel: TensorFlow's fake-quant",
    ):
        layer_traces(quantized, closed_forms.dataset(), num_probes=2)


def test_a_single_layer_without_curvature_is_named():
    with pytest.raises(errors.ModelError, match="'net'.* in dense0/kernel:"):
        layer_traces(
            closed_forms.network(FIRST),
            closed_forms.dataset(),
            closed_forms.linear,
            num_probes=2,
        )


def test_a_model_without_kernels():
    inputs = keras.Input([5])
    model = keras.Model(inputs, keras.layers.ReLU()(inputs), name="bare")
    with pytest.raises(errors.ModelError, match="'bare' has no weight"):
        layer_traces(model, closed_forms.dataset())


def test_derivatives_that_are_not_finite():
    def root(labels, outputs):
        return tf.reduce_sum(tf.sqrt(tf.abs(outputs)), axis=-1)

    network = closed_forms.network(FIRST)
    with pytest.raises(errors.ModelError, match="'net' are not finite"):
        layer_traces(
            network, closed_forms.dataset(0 * IMAGES), root, num_probes=2
        )
    np.testing.assert_array_equal(network.get_weights()[0], FIRST)


def test_settings_and_data_out_of_range():
    network = closed_forms.network(FIRST)
    with pytest.raises(errors.ConfigError, match="num_probes >= 2, not 1"):
        layer_traces(network, closed_forms.dataset(), num_probes=1)
    with pytest.raises(errors.DataError, match="empty"):
        layer_traces(network, closed_forms.dataset().take(0))
    with pytest.raises(errors.ConfigError, match="loss of each example"):
        layer_traces(
            network,
            closed_forms.dataset(),
            lambda labels, logits: tf.reduce_mean(
                cross_entropy(labels, logits)
            ),
        )
    network.layers[-1].kernel.assign(FIRST * np.nan)
    with pytest.raises(errors.ModelError, match="'net' is nan"):
        layer_traces(network, closed_forms.dataset())


def test_fields_but_the_arrays_are_numbers_and_names():
    (trace,) = layer_traces(
        closed_forms.network(FIRST), closed_forms.dataset(), num_probes=2
    )
    fields = dataclasses.asdict(trace)
    assert fields.pop("diagonal").shape == (5, 4)
    assert fields.pop("samples").shape == (2, 2)
    assert {type(value) for value in fields.values()} == {str, float, int}
