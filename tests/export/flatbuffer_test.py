"""A file that holds other integers than the network is found out."""

import functools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer, tflite
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness

layers = keras.layers


def _deployed(model, scheme):
    twin = quantize_model(model, scheme)
    calibrate(twin, harness.calibration_data())
    return inference_model(twin)


@functools.cache
def _exported():
    """Returns a network of all kinds of weights and its file."""
    model = harness.randomize_norms(harness.mobile())
    model.get_layer("logits").bias.assign(np.linspace(-1.0, 1.0, 10))
    network = _deployed(model, BitScheme(4, 8))
    return network, tflite.convert(network)


def _pack(model):
    builder = schema.flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _linear_tensor(model, operand, layer):
    """Returns the tensor that the operator of a layer reads."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if len(operator.inputs) < 3:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        if f"/{layer}/" in tensor.name.decode():
            return graph.tensors[operator.inputs[operand]]
    raise AssertionError(layer)


def test_what_is_read_back_is_what_was_deployed():
    network, content = _exported()
    flatbuffer.check(network, content)
    weights = flatbuffer.read_weights(flatbuffer.parse(content))
    assert [weight.operator for weight in weights] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
    ]
    for name, weight in zip(network.weight_grids, weights, strict=True):
        assert weight.belongs_to(name)
        grid = network.weight_grids[name]
        np.testing.assert_array_equal(
            weight.values.reshape(grid.levels.shape), grid.levels
        )
        np.testing.assert_array_equal(weight.bias, grid.bias_levels)
        np.testing.assert_array_max_ulp(
            weight.scales, grid.step_size.reshape(-1), 1
        )


def test_repacking_alone_changes_nothing():
    network, content = _exported()
    flatbuffer.check(network, _pack(flatbuffer.parse(content)))


@pytest.mark.parametrize("layer", ["stem", "depth2", "project", "logits"])
@pytest.mark.parametrize("what", ["level", "scale", "bias", "zero point"])
def test_one_changed_number_is_found(layer, what):
    network, content = _exported()
    model = flatbuffer.parse(content)
    tensor = _linear_tensor(model, 2 if what == "bias" else 1, layer)
    buffer = model.buffers[tensor.buffer]
    if what in ("level", "bias"):
        buffer.data = np.array(buffer.data, np.uint8)
        buffer.data[-1 if what == "level" else -4] ^= 1
    elif what == "scale":
        scale = np.array(tensor.quantization.scale, np.float32)
        scale[-1] = scale[-1] * np.float32(1 + 1e-6)
        tensor.quantization.scale = scale
    else:
        zeros = np.array(tensor.quantization.zeroPoint)
        zeros[-1] = 1
        tensor.quantization.zeroPoint = zeros
    message = {
        "level": f"layer '{layer}': 1 of .* weight levels differ",
        "bias": f"layer '{layer}': 1 of .* bias integers differ",
        "scale": f"layer '{layer}': weight scale .* is not the step size",
        "zero point": f"layer '{layer}': a zero point is not 0",
    }[what]
    with pytest.raises(errors.ExportError, match=message):
        flatbuffer.check(network, _pack(model))


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_changed_scale_of_an_end(end):
    network, content = _exported()
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    quantization = graph.tensors[getattr(graph, end)[0]].quantization
    quantization.scale = np.float32(quantization.scale) * np.float32(1.01)
    with pytest.raises(errors.ExportError, match=f"{end[:-1]} scale"):
        flatbuffer.check(network, _pack(model))


def test_file_of_another_network():
    network, _ = _exported()
    other = _deployed(harness.residual(), BitScheme(8, 8))
    with pytest.raises(
        errors.ExportError, match="layer 'stem': the file holds"
    ):
        flatbuffer.check(network, tflite.convert(other))


def test_a_bias_of_zeros_may_be_left_out():
    network = _deployed(harness.residual(), BitScheme(8, 8))
    content = tflite.convert(network)
    graph = flatbuffer.parse(content).subgraphs[0]
    assert -1 in [operator.inputs[-1] for operator in graph.operators]
    flatbuffer.check(network, content)


def test_file_without_a_layer():
    network, content = _exported()
    model = flatbuffer.parse(content)
    for tensor in model.subgraphs[0].tensors:
        tensor.name = tensor.name.replace(b"/project/", b"/other/")
    with pytest.raises(errors.ExportError, match="0 weights of layer 'project"):
        flatbuffer.check(network, _pack(model))


def _with_activation(name):
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Activation(name)(layers.Conv2D(4, 3)(inputs))
    x = layers.Dense(10, name="reader")(layers.Flatten()(x))
    return _deployed(keras.Model(inputs, x), BitScheme(8, 8))


def test_a_layer_without_a_grid_computes_in_float():
    network = _with_activation("softplus")
    content = tflite.convert(network)
    found = flatbuffer.float_operators(flatbuffer.parse(content))
    assert {"EXP", "LOG", "FULLY_CONNECTED"} <= set(found)
    with pytest.raises(
        errors.ExportError, match=r"in float in \[.*'EXP'.*has no grid"
    ):
        flatbuffer.check(network, content)


def test_a_grid_that_the_converter_made_up():
    network = _with_activation("tanh")  # to int8, at 1/128
    content = tflite.convert(network)
    assert flatbuffer.float_operators(flatbuffer.parse(content)) == []
    with pytest.raises(
        errors.ExportError, match="layer 'reader' reads values that have no"
    ):
        flatbuffer.check(network, content)


def test_garbage():
    network, content = _exported()
    generator = np.random.default_rng(0)
    for junk in (
        b"",
        b"TFL3",
        b"not a model, but a long enough text",
        b"\0\0\0\0TFL3" + bytes(100),
        b"\xff\xff\xff\x7fTFL3" + bytes(100),
        content[:4] + b"TFL2" + content[8:],
        generator.bytes(4) + b"TFL3" + generator.bytes(5000),
    ):
        with pytest.raises(errors.ExportError, match="this .*TensorFlow Lite"):
            flatbuffer.check(network, junk)


def test_truncated_anywhere():
    network, content = _exported()
    for size in np.linspace(8, len(content) - 1, 60).astype(int):
        try:
            flatbuffer.check(network, content[:size])
        except errors.ExportError:
            continue
        # the parts behind the last one that is read may be missing
        assert size > 0.9 * len(content)


def test_damaged_anywhere():
    """No flipped byte makes the reader fail in another way, or hang."""
    network, content = _exported()
    generator = np.random.default_rng(1)
    found = 0
    for position in generator.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        try:
            flatbuffer.check(network, bytes(damaged))
        except errors.ExportError:
            found += 1
    assert found > 10


def test_operators_of_an_object_tree():
    model = flatbuffer.parse(_exported()[1])
    graph = model.subgraphs[0]
    assert flatbuffer.float_operators(model) == []
    graph.tensors[
        graph.operators[0].outputs[0]
    ].type = schema.TensorType.FLOAT32
    assert flatbuffer.float_operators(model) == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ADD",
    ]


def test_float_file_can_be_any():
    inputs = layers.Input((4,), name="x")
    model = keras.Model(inputs, layers.Dense(2, activation="tanh")(inputs))
    network = inference_model(model)
    content = tflite.convert(network)
    flatbuffer.check(network, content)
    (weight,) = flatbuffer.read_weights(flatbuffer.parse(content))
    np.testing.assert_array_equal(weight.values, model.layers[1].kernel)
    assert weight.scales.size == 0 and weight.bias.dtype == np.float32
    with pytest.raises(errors.ExportError):
        flatbuffer.check(network, content[:100])
