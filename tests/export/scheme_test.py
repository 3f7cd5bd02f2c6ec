"""Each architecture at each number of bits: exact integers, same outputs."""

import functools

import numpy as np
import pytest

from export import flatbuffer, tflite, weights
from export.model_file import parse
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme, inference_model
from tests import harness, layer_nets
from tests.export.files import deployed, steps_off, stored

layers = keras.layers
pytestmark = pytest.mark.slow

_SCHEMES = [(8, 8), (4, 8), (4, 4), (3, 8), (2, 8), (2, 4), (1, 8)]
_NETS = (harness.tiny_nin, harness.residual, harness.mobile)
_TRAINED = {
    harness.tiny_nin: (2, 4),
    harness.residual: (4, 4),
    harness.mobile: (1, 8),
}


def _network(build, bits):
    """Returns a deployed network: of a trained model, or with odd norms."""
    scheme = BitScheme(*bits)
    if _TRAINED[build] == bits:
        return inference_model(harness.quantization_aware(build, scheme))
    return deployed(harness.randomize_norms(build()), scheme)


def _assert_integers(network, content, storage):
    """Asserts that a file holds the integers of a network, in few bits."""
    flatbuffer.check(network, content)
    model = parse(content)
    assert flatbuffer.float_operators(model) == []
    grids = network.weight_grids | network.affine_grids
    found = weights.read_weights(model)
    assert sorted(weight.name for weight in found) == sorted(grids)
    for weight in found:
        grid = grids[weight.name]
        levels = weight.values.reshape(grid.levels.shape)
        np.testing.assert_array_equal(levels, grid.levels)
        np.testing.assert_array_equal(weight.bias, grid.bias_levels)
        steps = np.broadcast_to(grid.step_size.reshape(-1), weight.scales.shape)
        np.testing.assert_array_max_ulp(weight.scales, steps, 1)
        assert not weight.zero_points.any()
        assert weight.num_bits == _stored_bits(grid.levels, storage)


def _stored_bits(levels, storage):
    largest = np.abs(levels).max()
    if storage == "int2" and largest <= 1:
        return 2
    return 4 if storage != "int8" and largest <= 7 else 8


def _cases():
    """Every network at all bits: the trained ones, and a third, are quick."""
    for row, build in enumerate(_NETS):
        for column, bits in enumerate(_SCHEMES):
            is_quick = _TRAINED[build] == bits or (row + column) % 3 == 0
            marks = () if is_quick else pytest.mark.full
            name = "{}-w{}a{}".format(build.__name__, *bits)
            yield pytest.param(build, bits, id=name, marks=marks)


@pytest.mark.parametrize(("build", "bits"), _cases())
def test_networks_hold_the_same_integers(build, bits):
    network = _network(build, bits)
    content = tflite.convert(network)
    for storage in tflite.STORAGES:
        file = stored(content, storage)
        _assert_integers(network, file, storage)
    assert storage == "int2"
    assert steps_off(network, file, expand_low_bits=True).max() <= 1


def _every_weight_bits():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, strides=2, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for bits in range(1, 9):
        x = layers.Conv2D(6, 1, name=f"w{bits}")(x)
        if bits in (3, 6):
            x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


@functools.cache
def _float_model():
    return layer_nets.randomized(_every_weight_bits)


def _bits_cases():
    for per_axis in (True, False):
        for activation_bits in range(2, 9):
            is_quick = per_axis == (activation_bits % 2 == 0)
            yield pytest.param(
                activation_bits,
                per_axis,
                marks=() if is_quick else pytest.mark.full,
            )


@pytest.mark.parametrize(("activation_bits", "per_axis"), _bits_cases())
def test_every_number_of_bits(activation_bits, per_axis):
    overrides = tuple((f"w{bits}", bits, None) for bits in range(1, 9))
    scheme = BitScheme(
        8, activation_bits, per_axis=per_axis, overrides=overrides
    )
    network = deployed(_float_model(), scheme)
    for bits in range(1, 9):
        grid = network.weight_grids[f"w{bits}"]
        assert grid.num_bits == bits
        assert grid.step_size.size == (6 if per_axis else 1)
    content = tflite.convert(network, storage="int2")
    _assert_integers(network, content, "int2")
    assert steps_off(network, content, expand_low_bits=True).max() <= 1
