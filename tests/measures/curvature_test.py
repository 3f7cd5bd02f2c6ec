"""Measures of curvature of Hessians that are written out."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import layer_traces, perturbations, shared
from qgen_tf.measures.curvature import hessian_top_eigenvalue, hessian_trace
from qgen_tf.measures.density import spectral_density
from qgen_tf.measures.losses import CrossEntropy
from qgen_tf.measures.weights import of_layer
from qgen_tf.quantization import BitScheme, inference_model, quantize_model
from tests import forks
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES
from tests.measures.explicit_hessian import softmax_hessian

MEASURES = [hessian_trace, hessian_top_eigenvalue]
_GENERATOR = np.random.default_rng(1)
FIRST = _GENERATOR.normal(size=(5, 4)).astype(np.float32)
SECOND = _GENERATOR.normal(size=(4, 3)).astype(np.float32)


def _linear():
    return keras.layers.Activation("linear")


def test_softmax_regression():
    hessian = softmax_hessian(FIRST)
    network, data = closed_forms.network(FIRST), closed_forms.dataset()
    trace = hessian_trace(network, data, num_probes=200)
    truth = np.trace(hessian)
    assert 0 < trace.standard_error < 0.05 * truth
    assert abs(trace.value - truth) < 4 * trace.standard_error
    assert trace.converged is True
    assert trace.unit == "nats/weight^2"
    top = hessian_top_eigenvalue(network, data, count=2, tolerance=1e-4)
    eigenvalues = np.linalg.eigvalsh(hessian)[::-1]
    assert top.value == top.details["eigenvalues"][0]
    np.testing.assert_allclose(
        top.details["eigenvalues"], eigenvalues[:2], rtol=1e-4
    )
    assert top.converged is True
    assert top.standard_error == 0.0
    assert top.details["residuals"][0] <= 1e-4 * top.value


def test_two_classes_as_one_output():
    # sigmoid(x w): H = E[p (1 - p) x x']
    kernel = FIRST[:, :1]
    data = closed_forms.dataset(labels=np.arange(32) % 2)
    shares = 1 / (1 + np.exp(-(IMAGES @ kernel)[:, 0].astype(np.float64)))
    weighted = IMAGES.T * shares * (1 - shares)
    truth = np.linalg.eigvalsh(weighted @ IMAGES / 32)
    from_logits = closed_forms.network(kernel)
    inputs = keras.Input([5])
    dense = keras.layers.Dense(1, activation="sigmoid", use_bias=False)
    probabilities = keras.Model(inputs, dense(inputs))
    dense.kernel.assign(kernel)
    for network, loss_fn in (
        (from_logits, CrossEntropy()),
        (probabilities, CrossEntropy(from_logits=False)),
    ):
        top = hessian_top_eigenvalue(network, data, loss_fn, tolerance=1e-4)
        assert top.value == pytest.approx(truth.max(), rel=1e-3)
        trace = hessian_trace(network, data, loss_fn, num_probes=50)
        assert abs(trace.value - truth.sum()) < 4 * trace.standard_error


def test_the_error_is_that_of_the_sum_over_layers():
    network = closed_forms.network(FIRST, SECOND, between=_linear)
    data = closed_forms.dataset(batch_size=32)
    with shared():  # one compilation
        results = [
            hessian_trace(
                network, data, closed_forms.quadratic, seed=seed, num_probes=8
            )
            for seed in range(24)
        ]
    spread = np.std([result.value for result in results], ddof=1)
    error = np.mean([result.standard_error for result in results])
    # 24 seeds know the spread to 15 %
    assert error == pytest.approx(spread, rel=0.4)
    # the same signs serve both layers, through the block between them: errors
    # that were independent would add up in squares to less
    layers = results[0].details["layers"]
    assert [layer["layer"] for layer in layers] == ["dense0", "dense1"]
    assert results[0].value == pytest.approx(
        sum(layer["trace"] for layer in layers)
    )
    independent = np.sqrt(
        np.mean(
            [
                sum(
                    layer["standard_error"] ** 2
                    for layer in r.details["layers"]
                )
                for r in results
            ]
        )
    )
    assert error > 1.02 * independent


def test_the_density_has_the_trace_and_the_largest_eigenvalue():
    network, data = closed_forms.network(FIRST, SECOND), closed_forms.dataset()
    with shared():
        trace = hessian_trace(network, data, point="latent", num_probes=200)
        top = hessian_top_eigenvalue(
            network, data, point="latent", tolerance=1e-4
        )
        density = spectral_density(network, data, num_vectors=30, num_steps=10)
    assert density.trace == pytest.approx(trace.value, rel=0.1)
    assert density.nodes.max() == pytest.approx(top.value, rel=1e-3)


def test_one_layer():
    network = closed_forms.network(FIRST, SECOND)
    hidden = np.maximum(IMAGES @ FIRST, 0).astype(np.float64)
    moments = hidden.T @ hidden / 32
    settings = {"variables": of_layer("dense1")}
    data = closed_forms.dataset()
    top = hessian_top_eigenvalue(
        network, data, closed_forms.quadratic, **settings
    )
    assert top.value == pytest.approx(
        np.linalg.eigvalsh(moments).max(), rel=1e-3
    )
    trace = hessian_trace(
        network, data, closed_forms.quadratic, num_probes=100, **settings
    )
    truth = 3 * np.trace(moments)
    assert abs(trace.value - truth) < 4 * trace.standard_error


@pytest.mark.parametrize("measure", MEASURES)
def test_points_of_a_network_whose_weights_are_clipped(measure):
    kernel = np.sign(FIRST)  # levels -1, 0 and 1, and a step size of 1
    kernel[0] = 0
    model = quantize_model(closed_forms.network(kernel), BitScheme(2, 32, 2))
    perturbations.kernels(model)[0].assign(3 * kernel)
    before = [value.tobytes() for value in model.get_weights()]
    values = {}
    for point in perturbations.POINTS:
        result = measure(
            model, closed_forms.dataset(), closed_forms.quadratic, point=point
        )
        assert result.settings["point"] == point
        values[point] = result.value
    assert [value.tobytes() for value in model.get_weights()] == before
    # under the quantizer only the row of zeros can move
    latent = (IMAGES[:, 0] ** 2).mean()
    whole = IMAGES.T @ IMAGES / 32
    if measure is hessian_trace:
        assert values["latent"] == pytest.approx(4 * latent, rel=1e-4)
        assert values["deployed"] == pytest.approx(4 * np.trace(whole), rel=0.3)
    else:
        assert values["latent"] == pytest.approx(latent, rel=1e-3)
        assert values["deployed"] == pytest.approx(
            np.linalg.eigvalsh(whole).max(), rel=1e-3
        )


def test_scale_of_batch_norm_is_gone_once_it_is_folded():
    def model(factor):
        inputs = keras.Input([5])
        dense = keras.layers.Dense(4, use_bias=False)
        norm = keras.layers.BatchNormalization(epsilon=0.0)
        net = keras.Model(inputs, norm(dense(inputs)))
        dense.kernel.assign(factor * FIRST)
        norm.moving_variance.assign(np.full(4, factor**2))
        return net

    data = closed_forms.dataset()
    for measure in MEASURES:
        plain, scaled = (measure(model(f), data).value for f in (1.0, 8.0))
        assert scaled == pytest.approx(plain, rel=1e-3)
    latent = hessian_trace(model(8.0), data, point="latent").value
    assert latent == pytest.approx(
        hessian_trace(model(1.0), data).value / 64, rel=1e-3
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_fake_quant_operations_have_no_curvature(measure):
    quantized = tfmot.quantization.keras.quantize_model(
        closed_forms.network(FIRST, SECOND)
    )
    quantized(IMAGES, training=True)
    with pytest.raises(
        errors.ModelError,
        match="dense0/kernel, quant_dense1/kernel: TensorFlow's fake-quant",
    ):
        measure(quantized, closed_forms.dataset(), point="latent")


@pytest.mark.parametrize("measure", MEASURES)
def test_an_unknown_point(measure):
    with pytest.raises(errors.ConfigError, match="'dequantized'"):
        measure(
            closed_forms.network(FIRST),
            closed_forms.dataset(),
            point="dequantized",
        )


def test_shared_measures_compile_once():
    traces = []

    def loss_fn(labels, outputs):
        traces.append(1)
        return closed_forms.quadratic(labels, outputs)

    network = closed_forms.network(FIRST)
    data = closed_forms.dataset(batch_size=32)
    with shared():
        hessian_trace(network, data, loss_fn)
        first = len(traces)
        hessian_top_eigenvalue(network, data, loss_fn)
        spectral_density(inference_model(network).model, data, loss_fn)
    assert first > 0
    # the density is that of another network
    assert len(traces) == 2 * first


def _measure_on_two_replicas():
    (cpu,) = tf.config.list_physical_devices("CPU")
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device, device])
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    one = closed_forms.network(FIRST, SECOND)
    with strategy.scope():
        two = closed_forms.network(FIRST, SECOND)
    # the last batch has one example: a replica gets none
    data = closed_forms.dataset(batch_size=31)
    for measure in MEASURES:
        a, b = (measure(model, data) for model in (one, two))
        np.testing.assert_allclose(a.value, b.value, rtol=1e-4)
        assert a.value > 0.01
    print("same")


def test_two_replicas_measure_as_one():
    done = forks.run(_measure_on_two_replicas)
    assert done.stdout.endswith("same\n"), done.stderr[-3000:]


def test_layer_traces_are_what_the_measure_adds_up():
    network, data = closed_forms.network(FIRST, SECOND), closed_forms.dataset()
    traces = layer_traces(network, data, num_probes=5, seed=2)
    result = hessian_trace(network, data, point="latent", num_probes=5, seed=2)
    assert result.value == pytest.approx(sum(t.trace for t in traces))
    with pytest.raises(errors.ConfigError, match="num_probes >= 2"):
        hessian_trace(network, data, num_probes=1)
