"""Weights of 8 and of 4 bits: the same integers, in fewer bytes."""

import functools

import numpy as np
import pytest

from export import flatbuffer, tflite, weights
from export.model_file import parse
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    QUANTIZERS,
    ActivationGrid,
    BitScheme,
    inference_model,
)
from tests import harness, layer_nets
from tests.export.files import assert_file_agrees, deployed, steps_off

layers = keras.layers


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_packing_two_levels_into_a_byte(size):
    levels = np.random.default_rng(size).integers(-7, 8, size, np.int8)
    packed = weights._packed(levels)
    assert packed.dtype == np.uint8 and packed.size == (size + 1) // 2
    np.testing.assert_array_equal(weights._unpacked(packed, size), levels)


def test_packing_by_hand():
    packed = weights._packed(np.int8([[1, -1], [7, -7], [0, 5]]))
    np.testing.assert_array_equal(packed, [0xF1, 0x97, 0x50])
    packed = weights._packed(np.int8([-2]))
    np.testing.assert_array_equal(packed, [0x0E])


def _all_operators():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    x = layers.Conv2D(32, 3, padding="same", name="conv", activation="relu")(x)
    x = layers.Conv2D(32, 3, groups=4, dilation_rate=2, name="groups")(x)
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = layers.Conv2DTranspose(16, 2, name="up")(x)
    x = layers.Dense(30, name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


@functools.cache
def _exported(bits):
    network = deployed(
        layer_nets.randomized(_all_operators), BitScheme(bits, 8)
    )
    return network, {
        storage: tflite.convert(network, storage=storage)
        for storage in tflite.STORAGES
    }


@pytest.mark.parametrize("bits", [2, 4])
def test_four_bits_hold_the_same_integers(bits):
    network, files = _exported(bits)
    wide, packed = (
        weights.read_weights(parse(files[storage]))
        for storage in ("int8", "int4")
    )
    for one, other in zip(wide, packed, strict=True):
        assert one.name == other.name and one.num_bits == 8
        inside = one.name not in ("stem", "up", "logits")
        assert other.num_bits == (4 if inside else 8)
        for field in ("values", "scales", "zero_points", "bias"):
            np.testing.assert_array_equal(
                getattr(one, field), getattr(other, field)
            )
    for content in files.values():
        flatbuffer.check(network, content)
    saved = sum(
        weight.values.size // 2 for weight in packed if weight.num_bits == 4
    )
    assert abs(len(files["int8"]) - len(files["int4"]) - saved) < 64
    assert saved > 0.15 * len(files["int8"])


def test_five_bits_are_not_packed():
    _, files = _exported(5)
    assert files["int4"] == files["int8"]


def test_files_of_four_bits_run():
    network, files = _exported(4)
    # the operators of 4 bits round some values of each layer one step off
    assert steps_off(network, files["int4"]).max() <= 3
    expanded = steps_off(network, files["int4"], expand_int4=True)
    wide = steps_off(network, files["int8"])
    np.testing.assert_array_equal(expanded, wide)
    assert wide.max() <= 1
    flatbuffer.check(network, weights.expand(files["int4"]))


def test_a_channel_without_weights():
    model = layer_nets.randomized(layer_nets.NETS["conv"])
    for name in ("stem", "conv2d"):
        layer = [x for x in model.layers if x.name.startswith(name)][-1]
        kernel = layer.kernel.numpy()
        kernel[..., :2] = 0.0
        layer.kernel.assign(kernel)
    assert_file_agrees(deployed(model, BitScheme(4, 8)))


def _eight_layers():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, strides=2, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for bits in range(1, 9):
        x = layers.Conv2D(6, 1, name=f"w{bits}")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_quantizer_at_all_weight_bits(quantizer):
    overrides = tuple((f"w{bits}", bits, 8) for bits in range(1, 9))
    scheme = BitScheme(quantizer=quantizer, overrides=overrides)
    network = deployed(layer_nets.randomized(_eight_layers), scheme)
    for name, grid in network.weight_grids.items():
        if grid.stride == 2:
            assert (grid.levels % 2 == 1).all(), name
    assert network.weight_grids["w1"].stride == 2
    assert_file_agrees(network)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_asymmetric_activations(bits):
    scheme = BitScheme(8, bits, quantizer="lsq_plus")
    network = deployed(layer_nets.randomized(_eight_layers), scheme)
    odd = {
        layer.zero_point
        for layer in network.model.layers
        if isinstance(layer, ActivationGrid) and layer.num_bits == bits
    } - {0, 2 ** (bits - 1)}
    assert odd
    assert_file_agrees(network)


def test_trained_two_bits():
    """Its BatchNorm leaves channels that are all but constant."""
    twin = harness.quantization_aware(
        harness.mobile, BitScheme(2, 2, quantizer="minmax")
    )
    assert_file_agrees(inference_model(twin))
