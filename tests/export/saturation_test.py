"""Activations of few bits saturate in the file where they do in the network."""

import numpy as np
import pytest

from export import flatbuffer, tflite
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    ActivationGrid,
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness, layer_nets
from tests.export.files import steps_off

layers = keras.layers
pytestmark = pytest.mark.slow


def _signed():
    """Convolutions without ReLU, one that is added, and a LeakyReLU."""
    inputs = layers.Input((8, 8, 1), name="image")
    x = skip = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    x = layers.Conv2D(6, 3, padding="same", name="conv")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.LeakyReLU(0.3)(layers.Add()([x, skip]))
    x = layers.MaxPooling2D(2)(layers.Conv2D(6, 1, name="project")(x))
    x = layers.Dense(12, name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def _network(build, scheme):
    """Returns a deployed network whose inner grids are far too small."""
    twin = quantize_model(layer_nets.randomized(build), scheme)
    calibrate(twin, harness.calibration_data())
    for variable in twin.variables:
        is_end = "image" in variable.name or "logits" in variable.name
        if "output_log_step" in variable.name and not is_end:
            variable.assign_sub(np.log(4.0))
    return inference_model(twin)


def _extreme_images():
    """Returns images far outside of the calibrated range, of either sign."""
    generator = np.random.default_rng(0)
    signs = generator.choice(np.float32([-1e3, 1e3]), (100, 8, 8, 1))
    plain = np.float32([[1e30], [-1e30], [1.0], [-1.0]])
    flat = np.broadcast_to(plain[:, :, None, None], (4, 8, 8, 1))
    digits = harness.test_images()[:100]
    return np.concatenate([signs, flat, 50.0 * digits, digits])


def _assert_saturated(network, images, bits):
    """Asserts that grids of so many bits are used from end to end."""
    grids = [
        layer
        for layer in network.model.layers
        if isinstance(layer, ActivationGrid) and layer.num_bits == bits
    ]
    outputs = [grid.output for grid in grids]
    values = keras.Model(network.model.inputs, outputs)(images)
    ends = 0
    for grid, value in zip(grids, values, strict=True):
        levels = np.rint(value.numpy() / grid.step_size)
        assert levels.min() >= grid.low and levels.max() <= grid.high
        ends += levels.min() == grid.low and levels.max() == grid.high
    assert ends >= 2


_NETS = (harness.tiny_nin, harness.residual, harness.mobile, _signed)


def _cases():
    """Every network at all bits: an eighth of it is quick."""
    for index, build in enumerate(_NETS):
        for bits in range(2, 8):
            for quantizer, quick in (("lsq", 0), ("lsq_plus", 3)):
                is_quick = (index + bits) % 8 == quick
                yield pytest.param(
                    build,
                    bits,
                    quantizer,
                    id=f"{build.__name__.strip('_')}-a{bits}-{quantizer}",
                    marks=() if is_quick else pytest.mark.full,
                )


@pytest.mark.parametrize(("build", "bits", "quantizer"), _cases())
def test_extreme_inputs(build, bits, quantizer):
    scheme = BitScheme(8, bits, quantizer=quantizer)
    network = _network(build, scheme)
    images = _extreme_images()
    _assert_saturated(network, images, bits)
    content = tflite.convert(network)
    flatbuffer.check(network, content)
    assert steps_off(network, content, images).max() <= 1


@pytest.mark.parametrize("quantizer", ["lsq", "lsq_plus"])
def test_extreme_inputs_of_eight_bits(quantizer):
    """int8 itself saturates there."""
    network = _network(_signed, BitScheme(8, 8, quantizer=quantizer))
    content = tflite.convert(network)
    assert steps_off(network, content, _extreme_images()).max() <= 1
