"""Every kind of layer becomes integers that compute what the network does."""

import pytest
import tensorflow as tf

from export import tflite
from export.model_file import operator_name, pack
from export.weights import read_weights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme
from tests import layer_nets
from tests.export.files import (
    assert_file_agrees,
    deployed,
    steps_off,
    stored,
)

layers = keras.layers


def _one(kind, *args, **kwargs):
    return layer_nets._net(lambda x: kind(*args, **kwargs)(x))


def _dense_images(x):
    x = layers.BatchNormalization()(layers.Dense(7)(x))
    return layers.ReLU(6.0)(x)


def _affine_sequence(x):
    x = layers.Reshape((36, 6))(x)
    return layers.ReLU(6.0)(layers.BatchNormalization()(x))


def _dilations(x):
    x = layers.Conv2D(6, 2, dilation_rate=2, activation="relu")(x)
    x = layers.DepthwiseConv2D(2, dilation_rate=2, padding="same")(x)
    return layers.Conv2D(6, 2, groups=3, dilation_rate=(2, 1))(x)


def _clipped_at_zero(x):
    """Values below zero reach a grid that has no levels there."""
    x = layers.MaxPooling2D(3)(layers.ReLU()(x))
    return layers.Multiply()([x, layers.Activation("tanh")(x)])


# the operator of a transposed convolution rounds twice, to one step off
_TRANSPOSED = {
    "transposed_valid": _one(layers.Conv2DTranspose, 4, (2, 4), (2, 1)),
    "transposed_relu": _one(
        layers.Conv2DTranspose, 4, 3, activation="relu", padding="same"
    ),
    "transposed_output_padding": _one(
        layers.Conv2DTranspose, 4, 3, 2, output_padding=1
    ),
}
_MORE = {
    "dense_images": layer_nets._net(_dense_images),
    "affine_sequence": layer_nets._net(_affine_sequence),
    "dilations": layer_nets._net(_dilations),
    "average_valid": _one(layers.AveragePooling2D),
    "average_all": _one(layers.AveragePooling2D, 6),
    "steep_leaky_relu": _one(layers.LeakyReLU, 2.0),
    "clipped_at_zero": layer_nets._net(_clipped_at_zero),
    **_TRANSPOSED,
}
_NETS = layer_nets.NETS | _MORE
# ReLU and bias are part of the operator before them
_OPERATORS = {
    "affine_sequence": [
        "CONV_2D",
        "RESHAPE",
        "DEPTHWISE_CONV_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
    ],
    "dense_images": [
        "CONV_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
        "RESHAPE",
        "FULLY_CONNECTED",
    ],
    "dilations": [
        "CONV_2D",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
    ],
}
# the networks of scheme_test.py consist of these
_USUAL = (
    "conv",
    "depthwise",
    "depthwise_multiplier",
    "batch_norm_after",
    "relu6",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if name in _USUAL else ())
        for name in _NETS
    ],
)
def test_file_and_network(name):
    network = deployed(layer_nets.randomized(_NETS[name]), BitScheme(4, 8))
    transposed = name in _TRANSPOSED or name == "transposed"
    file = assert_file_agrees(
        network,
        most=2 if name in _TRANSPOSED else 1,
        share=0.3 if transposed else 0.01,
    )
    layers_with_weights = {*network.weight_grids, *network.affine_grids}
    assert {w.name for w in read_weights(file)} == layers_with_weights
    if name in _OPERATORS:
        operators = file.subgraphs[0].operators
        assert [operator_name(file, op) for op in operators] == _OPERATORS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "per_axis"),
    [
        ("transposed", True),
        pytest.param("transposed", False, marks=pytest.mark.full),
        ("concatenate", False),
        pytest.param("average_pooling", True, marks=pytest.mark.full),
        ("upsampling_bilinear", True),
        pytest.param("leaky_relu", True, marks=pytest.mark.full),
        pytest.param("batch_norm_alone", False, marks=pytest.mark.full),
        ("clipped_at_zero", True),
    ],
)
def test_few_bits(name, per_axis):
    """A difference of one level is a large one."""
    model = layer_nets.randomized(_NETS[name])
    network = deployed(model, BitScheme(2, 3, per_axis=per_axis))
    assert_file_agrees(network)


_EIGHT = pytest.param(8, marks=pytest.mark.full)


@pytest.mark.parametrize("weight_bits", [4, _EIGHT])
def test_dense_layers_with_a_step_for_each_output(weight_bits):
    scheme = BitScheme(weight_bits, 8, per_axis_dense=True)
    model = layer_nets.randomized(layer_nets.NETS["dense"])
    network = deployed(model, scheme)
    sizes = {name: g.step_size.size for name, g in network.weight_grids.items()}
    assert set(sizes.values()) == {6, 20, 10}
    file = assert_file_agrees(network)
    scales = {w.name: w.scales.size for w in read_weights(file)}
    assert scales == sizes
    storages = {}
    for storage in ("int8", "int4"):
        content = stored(pack(file), storage)
        storages[storage] = steps_off(network, content)
    assert storages["int8"].max() <= 1 and storages["int4"].max() <= 1


def test_equal_layers_have_their_own_weights():
    """The converter lets equal constants share a tensor."""

    def norms(x):
        for index in range(3):
            x = layers.MaxPooling2D(2, 1)(x)
            x = layers.BatchNormalization(name=f"norm{index}")(x)
        ones = {"kernel_initializer": "ones", "bias_initializer": "ones"}
        x = layers.Conv2D(6, 1, name="conv", **ones)(x)
        y = layers.Conv2D(6, 1, name="conv/x", **ones)(x)
        return layers.Add()([y, layers.Conv2D(6, 1, name="conv/y", **ones)(x)])

    network = deployed(layer_nets._net(norms)(), BitScheme(4, 8))
    file = assert_file_agrees(network)
    assert {weight.name for weight in read_weights(file)} == {
        *("stem", "norm0", "norm1", "norm2"),
        *("conv", "conv/x", "conv/y", "logits"),
    }
    tensors = file.subgraphs[0].tensors
    constants = [
        tensor.buffer
        for tensor in tensors
        if tensor.quantization.scale is not None
        and file.buffers[tensor.buffer].data is not None
    ]
    assert len(constants) == len(set(constants)) == 16


def test_dilated_transposed_convolution():
    build = _one(layers.Conv2DTranspose, 4, 3, dilation_rate=2, name="up")
    network = deployed(build(), BitScheme(4, 8))
    with pytest.raises(errors.ExportError, match="^layer 'up': .* set it to 1"):
        tflite.convert(network)


@pytest.mark.parametrize("bits", [2, _EIGHT])
def test_constant_channels(bits):
    """BatchNorm that has all but switched off channels: huge biases."""
    model = layer_nets.randomized(layer_nets.NETS["pre_activation"])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma = layer.gamma.numpy()
            gamma[1:5] = [1e-6, -1e-8, 1e-12, 1e-20]
            layer.gamma.assign(gamma)
            layer.beta.assign(tf.fill(gamma.shape, 0.5))
    network = deployed(model, BitScheme(bits, 8))
    biases = [
        abs(grid.bias_levels).max()
        for grid in (network.weight_grids | network.affine_grids).values()
    ]
    assert 2**29 < max(biases) <= 2**30 * 1.001
    assert_file_agrees(network)
