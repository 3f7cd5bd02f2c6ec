"""The deployed network against the model that was trained."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.models import resnet18
from qgen_tf.quantization import (
    ActivationGrid,
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.inference import input_step_size
from qgen_tf.quantization.quantize import wrappers
from tests import harness

layers = keras.layers


def _norms(network):
    return [
        layer.name
        for layer in network.model.layers
        if isinstance(layer, layers.BatchNormalization)
    ]


def _small_resnet18():
    return resnet18((8, 8, 1), 10, width=8)


def _one_norm(layer, **norm):
    inputs = layers.Input((6, 6, 3))
    x = layers.BatchNormalization(**norm)(layer(inputs))
    return keras.Model(inputs, layers.Activation("tanh")(x))


_FLOATS = {
    "nin": harness.tiny_nin,
    "residual": harness.residual,
    "mobile": harness.mobile,
    "resnet18": _small_resnet18,
    "no_scale": lambda: _one_norm(layers.Conv2D(4, 3), scale=False),
    "no_center": lambda: _one_norm(layers.Conv2D(4, 3), center=False),
    "neither": lambda: _one_norm(
        layers.Conv2D(4, 3, bias_initializer="normal"),
        scale=False,
        center=False,
        epsilon=0.1,
    ),
    "depthwise": lambda: _one_norm(
        layers.DepthwiseConv2D(3, bias_initializer="normal")
    ),
    "depth_multiplier": lambda: _one_norm(
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    ),
    "groups": lambda: _one_norm(layers.Conv2D(6, 3, groups=3, use_bias=False)),
    "dense": lambda: _one_norm(layers.Dense(5, bias_initializer="normal")),
    "transposed": lambda: _one_norm(
        layers.Conv2DTranspose(5, 3, strides=2, bias_initializer="normal")
    ),
}


@pytest.mark.parametrize("name", _FLOATS)
def test_folding_of_a_float_model(name):
    model = harness.randomize_norms(_FLOATS[name]())
    network = inference_model(model)
    assert network.weight_grids == {}
    assert _norms(network) == []
    generator = np.random.default_rng(0)
    images = generator.normal(size=(16, *model.input.shape[1:]))
    images = images.astype(np.float32)
    floats = model(images).numpy()
    assert np.ptp(floats) > 0.1
    np.testing.assert_allclose(
        network.model(images), floats, atol=1e-5 * np.abs(floats).max()
    )


def test_norms_that_cannot_be_folded_stay():
    inputs = layers.Input((6, 6, 3))
    x = layers.BatchNormalization(name="first")(inputs)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.BatchNormalization(name="after_relu")(x)
    x = conv = layers.Conv2D(4, 3, name="read_twice")(x)
    x = layers.BatchNormalization(name="second_reader")(x)
    x = layers.Add()([x, conv])
    x = layers.Conv2D(4, 1, name="output_too")(x)
    y = layers.BatchNormalization(name="of_output")(x)
    model = harness.randomize_norms(keras.Model(inputs, [x, y]))
    network = inference_model(model)
    assert _norms(network) == [
        "first",
        "after_relu",
        "second_reader",
        "of_output",
    ]
    images = tf.random.normal([4, 6, 6, 3])
    for old, new in zip(model(images), network.model(images), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("per_axis", [True, False])
def test_weights_are_levels_times_step(bits, per_axis):
    model = harness.randomize_norms(harness.mobile())
    twin = quantize_model(model, BitScheme(bits, 32, per_axis=per_axis))
    network = inference_model(twin)
    assert list(network.weight_grids) == [
        layer.name for layer in network.model.layers if layer.weights
    ]
    for name, grid in network.weight_grids.items():
        weight = network.model.get_layer(name).get_weights()[0]
        assert grid.levels.dtype == np.int8
        np.testing.assert_array_equal(
            weight, grid.levels.astype(np.float32) * grid.step_size
        )
        np.testing.assert_array_equal(weight, grid.values)
        wanted_bits = 8 if name in ("stem", "logits") else bits
        assert grid.num_bits == wanted_bits
        high = 2 ** (wanted_bits - 1) - 1
        assert np.abs(grid.levels).max() <= high
        assert len(np.unique(grid.levels)) <= 2**wanted_bits - 1
        assert (grid.step_size > 0).all()
        assert grid.bias_levels is None  # inputs are float


@pytest.mark.parametrize("per_axis", [True, False])
def test_negative_gammas_flip_levels_and_zero_ones_clear_them(per_axis):
    model = harness.residual()
    twin = quantize_model(model, BitScheme(4, 32, per_axis=per_axis))
    before = inference_model(twin).weight_grids["branch"]
    (norm,) = (
        layer for layer in twin.layers if layer.name.endswith("branch_bn")
    )
    variance = np.linspace(0.5, 2.0, 12).astype(np.float32)
    gamma = np.linspace(-1.0, 1.0, 12).astype(np.float32)
    gamma[4] = 0.0
    beta, mean = np.zeros(12, np.float32), np.zeros(12, np.float32)
    norm = getattr(norm, "layer", norm)
    norm.set_weights([gamma, beta, mean, variance])
    after = inference_model(twin).weight_grids["branch"]
    np.testing.assert_array_equal(
        after.levels, before.levels * np.sign(gamma).astype(np.int8)
    )
    assert np.abs(after.levels).max() == 7
    factor = np.abs(gamma) / np.sqrt(variance + 1e-3)
    ratio = (after.step_size / before.step_size).reshape(-1)
    old = np.float32(1 / np.sqrt(1 + 1e-3))  # of a fresh BatchNorm
    chosen = gamma != 0.0
    np.testing.assert_allclose(ratio[chosen] * old, factor[chosen], rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "scheme"),
    [
        (harness.tiny_nin, BitScheme(8, 8)),
        (harness.tiny_nin, BitScheme(4, 4, per_axis=False)),
        (harness.residual, BitScheme(4, 8)),
        pytest.param(harness.mobile, BitScheme(4, 4), marks=pytest.mark.full),
        pytest.param(harness.tiny_nin, BitScheme(2, 8), marks=pytest.mark.full),
    ],
)
def test_a_trained_twin_and_its_deployed_network_agree(build, scheme):
    twin = harness.quantization_aware(build, scheme)
    weights = [value.copy() for value in twin.get_weights()]
    network = inference_model(twin)
    images, labels = harness.digits()
    trained = twin.predict(images, verbose=0)
    deployed = network.model.predict(images, verbose=0)
    off = np.abs(trained - deployed) / harness.output_step(network)
    np.testing.assert_allclose(off, np.rint(off), atol=1e-3)
    # biases are rounded, and an activation of few bits may flip for it
    few = min(scheme.weight_bits, scheme.activation_bits)
    mean, largest = (0.3, 4) if few == 8 else (5.0, 60)
    assert off.mean() < mean and off.max() <= largest
    agreement = (trained.argmax(1) == deployed.argmax(1)).mean()
    assert agreement > (0.995 if few == 8 else 0.95)
    accuracies = [
        (logits.argmax(1) == labels).mean() for logits in (trained, deployed)
    ]
    assert abs(accuracies[0] - accuracies[1]) < 0.02
    for old, new in zip(weights, twin.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_without_biases_and_norms_the_deployed_network_is_the_twin():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, use_bias=False, activation="relu")(inputs)
    x = layers.Conv2D(6, 3, use_bias=False)(layers.MaxPooling2D()(x))
    x = layers.Dropout(0.5)(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(10, use_bias=False)(x))
    twin = quantize_model(model, BitScheme(3, 4))
    calibrate(twin, harness.calibration_data())
    network = inference_model(twin)
    images = harness.test_images()
    np.testing.assert_array_equal(twin(images), network.model(images))


def test_activation_grids_and_biases():
    twin = harness.calibrated(harness.residual, BitScheme(4, 4))
    network = inference_model(twin)
    grids = {
        layer.name: layer
        for layer in network.model.layers
        if isinstance(layer, ActivationGrid)
    }
    quantizers = {
        f"{wrapper.layer.name}_grid": wrapper
        for wrapper in wrappers(twin)
        if wrapper.quantize_config.output_quantizer is not None
    }
    assert grids.keys() == quantizers.keys()
    for name, layer in grids.items():
        quantizer = quantizers[name].quantize_config.output_quantizer
        step, zero_point = quantizer.grid(
            quantizers[name]._output_quantizer_vars
        )
        assert (layer.step_size, layer.zero_point) == (step, zero_point)
        assert layer.high - layer.low == 2**quantizer.num_bits - 1
    for name, grid in network.weight_grids.items():
        layer = network.model.get_layer(name)
        step = input_step_size(layer.input) * grid.step_size.astype(np.float64)
        assert grid.bias_levels.dtype == np.int32
        assert grid.bias_levels.shape == (grid.levels.shape[-1],)
        np.testing.assert_allclose(
            layer.bias, grid.bias_levels * step.reshape(-1), rtol=1e-6
        )
    # through max pooling and Flatten the grid stays
    flat = network.model.get_layer("logits").input
    assert input_step_size(flat) == grids["add_relu_grid"].step_size
    assert input_step_size(network.model.inputs[0]) is None


def test_norms_between_grids_become_factors():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Rescaling(0.5, offset=0.25, name="scale")(inputs)
    x = layers.MaxPooling2D(2)(layers.Conv2D(6, 3)(x))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(10)(layers.Flatten()(x))
    model = harness.randomize_norms(keras.Model(inputs, x))
    twin = quantize_model(model, BitScheme(4, 8))
    calibrate(twin, harness.calibration_data())
    network = inference_model(twin)
    assert list(network.affine_grids) == ["scale", "norm"]
    assert _norms(network) == []
    images = tf.constant(harness.test_images())
    for name, grid in network.affine_grids.items():
        layer = network.model.get_layer(name)
        assert set(np.unique(grid.levels)) <= {-127, 0, 127}
        np.testing.assert_array_equal(layer.kernel, grid.values)
        step = input_step_size(layer.input) * grid.step_size.astype(np.float64)
        np.testing.assert_allclose(
            layer.bias, grid.bias_levels * step, rtol=1e-6
        )
        values = keras.Model(network.model.input, layer.input)(images)
        wanted = model.get_layer(name)(values)
        assert np.abs(layer(values) - wanted).max() <= 0.51 * step.max()


def test_noise_is_at_most_half_a_step_inside_the_range():
    twin = harness.quantization_aware(harness.tiny_nin, BitScheme(8, 8))
    for grid in inference_model(twin).weight_grids.values():
        inside = np.abs(grid.levels) < 127
        noise = np.abs(grid.latent - grid.values) / grid.step_size
        assert noise[inside].max() <= 0.5 + 1e-3
        assert noise[inside].max() > 0.4
