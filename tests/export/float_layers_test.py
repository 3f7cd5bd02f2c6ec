"""What is left alone computes in float, with the weights that it has."""

import numpy as np
import tensorflow as tf

from export import flatbuffer, tflite
from export.float_layers import FencedLayer
from export.model_file import operator_name, parse
from export.weights import read_weights
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme
from tests import layer_nets
from tests.export.files import assert_file_agrees, deployed

layers = keras.layers


class _OwnConv(layers.Conv2D):
    """A subclass, which may do anything: it is left alone."""


def _left_alone(x):
    x = _OwnConv(64, 3, padding="same", name="own")(x)
    x = layers.Conv2D(5, 3, name="behind")(x)
    return layers.PReLU(name="slopes")(x)


def test_weights_between_grids_stay_float():
    model = layer_nets.randomized(layer_nets._net(_left_alone))
    network = deployed(model, BitScheme(4, 8))
    file = assert_file_agrees(network, allow_float=["own", "slopes"])
    kinds = [operator_name(file, op) for op in file.subgraphs[0].operators]
    assert kinds == [
        *("CONV_2D", "DEQUANTIZE", "CONV_2D", "QUANTIZE"),
        *("CONV_2D", "DEQUANTIZE", "PRELU", "QUANTIZE"),
        *("RESHAPE", "FULLY_CONNECTED"),
    ]
    own = read_weights(file)[1]
    assert own.num_bits == 32 and own.scales.size == 0
    kernel, bias = model.get_layer("own").get_weights()
    np.testing.assert_array_equal(own.values, kernel)
    np.testing.assert_array_equal(own.bias, bias)


def test_few_levels_behind_a_float_layer_are_cut_off_in_float():
    build = layer_nets._net(
        layers.Activation("softplus", name="soft"), layers.Conv2D(3, 1)
    )
    network = deployed(layer_nets.randomized(build), BitScheme(4, 3))
    file = assert_file_agrees(network, allow_float=["soft"])
    assert "RELU" in flatbuffer.float_operators(file)


def test_weights_of_32_bits_stay_float():
    model = layer_nets.randomized(layer_nets.NETS["conv"])
    (middle,) = (x.name for x in model.layers if x.name.startswith("conv2d"))
    scheme = BitScheme(4, 8, overrides=((middle, 32, 8),))
    network = deployed(model, scheme)
    assert list(network.weight_grids) == ["stem", "logits"]
    file = assert_file_agrees(network, allow_float=[middle])
    weights = {weight.num_bits: weight for weight in read_weights(file)}
    np.testing.assert_array_equal(
        weights[32].values, model.get_layer(middle).kernel
    )


def test_a_norm_over_other_axes_is_the_only_layer_in_float():
    build = layer_nets._net(layers.LayerNormalization([1, 2, 3], name="norm"))
    network = deployed(layer_nets.randomized(build), BitScheme(4, 8))
    content = tflite.convert(network, allow_float=["norm"])
    flatbuffer.check(network, content, ["norm"])
    found = flatbuffer.float_operators(parse(content))
    assert {"MEAN", "RSQRT"} < set(found) and "CAST" not in found


def test_a_fence_changes_nothing():
    """However many tensors go in and out."""
    cell = layers.LSTMCell(3)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(2, 4)).astype(np.float32)
    states = [tf.ones((2, 3))] * 2
    found = tf.nest.flatten(FencedLayer(cell)(inputs, states=states))
    wanted = tf.nest.flatten(cell(inputs, states=states))
    assert len(found) == 3
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
