"""Weights of 8, 4 and 2 bits: the same integers, in fewer bytes."""

import functools

import numpy as np
import pytest

from export import flatbuffer, tflite, weights
from export.model_file import parse
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    ActivationGrid,
    BitScheme,
    inference_model,
)
from tests import harness, layer_nets
from tests.export.files import (
    assert_file_agrees,
    deployed,
    steps_off,
    stored,
)

layers = keras.layers
pytestmark = pytest.mark.slow


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
    """Returns a network and its file in each storage."""
    network = deployed(
        layer_nets.randomized(_all_operators), BitScheme(bits, 8)
    )
    content = tflite.convert(network)
    return network, {
        storage: stored(content, storage) for storage in tflite.STORAGES
    }


@pytest.mark.parametrize("storage", ["int4", "int2"])
def test_conversion_to_few_bits_is_their_storage(storage):
    network, files = _exported(2)
    assert tflite.convert(network, storage=storage) == files[storage]


def test_storage_can_be_changed_at_any_time():
    _, files = _exported(2)
    for before in files.values():
        for storage, wanted in files.items():
            found = parse(stored(before, storage))
            for one, other in zip(
                weights.read_weights(found),
                weights.read_weights(parse(wanted)),
                strict=True,
            ):
                assert one.num_bits == other.num_bits
                np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("bits", "storage", "inner", "transposed"),
    [
        (4, "int4", 4, 8),  # no runtime reads a transposed one of 4 bits
        (2, "int4", 4, 8),
        (2, "int2", 2, 2),
        (4, "int2", 4, 8),
    ],
)
def test_fewer_bits_hold_the_same_integers(bits, storage, inner, transposed):
    network, files = _exported(bits)
    wide, narrow = (
        weights.read_weights(parse(files[name])) for name in ("int8", storage)
    )
    wanted = {"stem": 8, "logits": 8, "up": transposed}
    saved = 0
    for one, other in zip(wide, narrow, strict=True):
        assert one.name == other.name and one.num_bits == 8
        assert other.num_bits == wanted.get(one.name, inner)
        saved += other.values.size * (8 - other.num_bits) // 8
        for field in ("values", "scales", "zero_points", "bias"):
            np.testing.assert_array_equal(
                getattr(one, field), getattr(other, field)
            )
    flatbuffer.check(network, files[storage])
    # the new buffers' entries take a few bytes each
    assert abs(len(files["int8"]) - len(files[storage]) - saved) < 200
    assert saved > 0.15 * len(files["int8"])


def test_five_bits_are_not_packed():
    _, files = _exported(5)
    assert files["int2"] == files["int4"] == files["int8"]


@pytest.mark.parametrize(("bits", "storage"), [(4, "int4"), (2, "int2")])
def test_expanded_files_compute_what_those_of_eight_bits_do(bits, storage):
    network, files = _exported(bits)
    wide = steps_off(network, files["int8"])
    assert wide.max() <= 2  # the transposed convolution rounds twice
    expanded = steps_off(network, files[storage], expand_low_bits=True)
    np.testing.assert_array_equal(expanded, wide)
    flatbuffer.check(network, weights.expand(files[storage]))


def test_files_of_four_bits_run_as_they_are():
    network, files = _exported(4)
    # the operators of 4 bits round some values of each layer one step off
    assert steps_off(network, files["int4"]).max() <= 3


def test_expanded_files_run_with_the_reference_kernels():
    """These know no operators of the versions that read 4 bits."""
    network, files = _exported(4)
    settings = {"kernels": "reference"}
    with pytest.raises(errors.ExportError, match="'DEPTHWISE_CONV_2D' version"):
        steps_off(network, files["int4"], **settings)
    expanded = steps_off(
        network, files["int4"], expand_low_bits=True, **settings
    )
    wide = steps_off(network, files["int8"], **settings)
    np.testing.assert_array_equal(expanded, wide)


def _dense():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Dense(30, name="first")(layers.Flatten()(inputs))
    x = layers.Dense(33, name="odd", activation="relu")(x)
    x = layers.Dense(16, name="even", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def test_dense_layers_of_two_bits_run_as_they_are():
    """Rows of 30 and 33 levels do not end at the end of a byte."""
    network = deployed(layer_nets.randomized(_dense), BitScheme(2, 8))
    content = tflite.convert(network, storage="int2")
    found = {
        weight.name: weight.num_bits
        for weight in weights.read_weights(parse(content))
    }
    assert found == {"first": 8, "odd": 2, "even": 2, "logits": 8}
    assert steps_off(network, content).max() <= 2
    assert steps_off(network, content, expand_low_bits=True).max() == 0


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


@pytest.mark.parametrize("quantizer", harness.QUANTIZERS)
def test_every_quantizer_at_all_weight_bits(quantizer):
    overrides = tuple((f"w{bits}", bits, 8) for bits in range(1, 9))
    scheme = BitScheme(quantizer=quantizer, overrides=overrides)
    network = deployed(layer_nets.randomized(_eight_layers), scheme)
    for name, grid in network.weight_grids.items():
        if grid.stride == 2:
            assert (grid.levels % 2 == 1).all(), name
    assert network.weight_grids["w1"].stride == 2
    assert_file_agrees(network)


@pytest.mark.parametrize(
    "bits", [pytest.param(8, marks=pytest.mark.full), 4, 2]
)
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
