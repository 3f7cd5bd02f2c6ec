"""A file that holds other integers than the network is found out."""

import functools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer, tflite
from export.model_file import pack, parse
from export.weights import read_weights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import ActivationGrid, BitScheme, inference_model
from tests import harness, layer_nets
from tests.export.files import deployed

layers = keras.layers


def _all_weights():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    x = skip = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=2, name="depth2"
    )(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(6, 1, name="project")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2)(layers.Add(name="add")([x, skip]))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, name="up")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.BatchNormalization()(layers.Dense(12, name="hidden")(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


@functools.cache
def _exported():
    """Returns a network of all kinds of weights and its file."""
    network = deployed(layer_nets.randomized(_all_weights), BitScheme(4, 8))
    return network, tflite.convert(network)


def _linear_tensor(model, operand, layer):
    """Returns the tensor that the operator of a layer reads."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if len(operator.inputs) < 3:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        if tensor.name.decode() == layer:
            return graph.tensors[operator.inputs[operand]]
    raise AssertionError(layer)


def test_what_is_read_back_is_what_was_deployed():
    network, content = _exported()
    flatbuffer.check(network, content)
    weights = read_weights(parse(content))
    assert [(weight.name, weight.operator) for weight in weights] == [
        ("stem", "CONV_2D"),
        ("depth2", "DEPTHWISE_CONV_2D"),
        ("project", "CONV_2D"),
        ("norm", "DEPTHWISE_CONV_2D"),
        ("up", "TRANSPOSE_CONV"),
        ("hidden", "FULLY_CONNECTED"),
        ("logits", "FULLY_CONNECTED"),
    ]
    grids = network.weight_grids | network.affine_grids
    for weight in weights:
        grid = grids[weight.name]
        np.testing.assert_array_equal(
            weight.values.reshape(grid.levels.shape), grid.levels
        )
        np.testing.assert_array_equal(weight.bias, grid.bias_levels)
        np.testing.assert_array_max_ulp(
            weight.scales, grid.step_size.reshape(-1), 1
        )
        steps = 1 if weight.name == "logits" else weight.bias.size
        assert weight.scales.size == steps and weight.bias.any()


def test_repacking_alone_changes_nothing():
    network, content = _exported()
    flatbuffer.check(network, pack(parse(content)))


@pytest.mark.parametrize("layer", ["stem", "depth2", "norm", "up", "logits"])
@pytest.mark.parametrize("what", ["level", "scale", "bias", "zero point"])
def test_one_changed_number_is_found(layer, what):
    network, content = _exported()
    model = parse(content)
    operand = -1 if what == "bias" else 1
    tensor = _linear_tensor(model, operand, layer)
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
        flatbuffer.check(network, pack(model))


@pytest.mark.parametrize("end", ["inputs", "outputs"])
@pytest.mark.parametrize("what", ["scale", "zero point"])
def test_changed_grid_of_an_end(end, what):
    network, content = _exported()
    model = parse(content)
    graph = model.subgraphs[0]
    quantization = graph.tensors[getattr(graph, end)[0]].quantization
    if what == "scale":
        quantization.scale = quantization.scale * np.float32(1.01)
    else:
        quantization.zeroPoint = quantization.zeroPoint + 1
    with pytest.raises(
        errors.ExportError, match=f"{end[:-1]} {what}|the converter made up"
    ):
        flatbuffer.check(network, pack(model))


@pytest.mark.parametrize("field", ["scale", "zeroPoint"])
def test_a_grid_that_the_converter_made_up(field):
    network, content = _exported()
    model = parse(content)
    graph = model.subgraphs[0]
    quantization = graph.tensors[graph.operators[2].outputs[0]].quantization
    values = getattr(quantization, field)
    setattr(quantization, field, values + values.dtype.type(1))
    with pytest.raises(
        errors.ExportError, match="'.*project.*': the converter made up its sca"
    ):
        flatbuffer.check(network, pack(model))


def test_every_grid_is_in_the_file():
    network, content = _exported()
    found = {
        (float(tensor.quantization.scale[0]), tensor.quantization.zeroPoint[0])
        for tensor in parse(content).subgraphs[0].tensors
        if tensor.type == schema.TensorType.INT8
    }
    for layer in network.model.layers:
        if isinstance(layer, ActivationGrid):
            step_size = float(np.float32(layer.step_size))
            assert (step_size, layer.int8_zero_point) in found


def test_file_of_another_network():
    network, _ = _exported()
    other = deployed(harness.residual(), BitScheme(8, 8))
    with pytest.raises(
        errors.ExportError, match="layer 'stem': the file holds"
    ):
        flatbuffer.check(network, tflite.convert(other))


def test_a_bias_of_zeros_may_be_left_out():
    network = deployed(harness.residual(), BitScheme(8, 8))
    assert not network.weight_grids["logits"].bias_levels.any()
    model = parse(tflite.convert(network))
    operator = model.subgraphs[0].operators[-1]
    operator.inputs = np.array([*operator.inputs[:2], -1], np.int32)
    flatbuffer.check(network, pack(model))


def test_file_without_a_layer():
    network, content = _exported()
    model = parse(content)
    _linear_tensor(model, 1, "project").name = b"project/x"
    with pytest.raises(errors.ExportError, match="0 weights of layer 'project"):
        flatbuffer.check(network, pack(model))


@functools.cache
def _with_float_layers():
    """Returns a network with unknown layers, one name within another."""
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    x = layers.Activation("softplus", name="soft")(x)
    x = layers.Conv2D(4, 3, name="middle")(x)
    x = layers.ELU(name="soft/elu")(x)
    x = layers.Dense(10, name="reader")(layers.Flatten()(x))
    network = deployed(keras.Model(inputs, x), BitScheme(8, 8))
    return network, tflite.convert(network, allow_float=["soft*"])


def test_layers_in_float_are_named():
    network, content = _with_float_layers()
    model = parse(content)
    found = flatbuffer.float_operators(model)
    assert {"EXP", "LOG", "ELU", "DEQUANTIZE", "QUANTIZE"} <= set(found)
    assert flatbuffer.float_layers(network, model) == {
        "soft": ["ADD", "EXP", "LOG"],
        "soft/elu": ["ELU"],
    }
    message = (
        "in float: ADD of layer 'soft', ELU of layer 'soft/elu', EXP of "
        "layer 'soft', LOG of layer 'soft'. Quantize"
    )
    with pytest.raises(errors.ExportError, match=message):
        flatbuffer.check(network, content)
    with pytest.raises(errors.ExportError, match=message):
        tflite.convert(network)


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        (["soft"], "float: ELU of layer 'soft/elu'. Quantize"),
        (["*/elu", "reader"], "float: ADD of layer 'soft', EXP .* 'soft'. Q"),
        (["soft*"], None),
        (["soft", "soft/elu"], None),
    ],
)
def test_layers_that_may_compute_in_float(patterns, named):
    network, content = _with_float_layers()
    if named is None:
        flatbuffer.check(network, content, allow_float=patterns)
        return
    with pytest.raises(errors.ExportError, match=named):
        flatbuffer.check(network, content, allow_float=patterns)


def test_a_layer_that_reads_floats():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    x = layers.Conv2D(4, 3, name="reader")(x)
    x = layers.Dense(10)(layers.Flatten()(x))
    scheme = BitScheme(8, 8, overrides=(("stem", 8, 32),))
    network = deployed(keras.Model(inputs, x), scheme)
    content = tflite.convert(network, allow_float=["stem", "reader"])
    with pytest.raises(
        errors.ExportError,
        match="CONV_2D of layer 'reader', CONV_2D of layer 'stem'",
    ):
        flatbuffer.check(network, content)
    with pytest.raises(errors.ExportError, match="float: CONV.*'reader'. Q"):
        flatbuffer.check(network, content, allow_float=["stem"])
    flatbuffer.check(network, content, allow_float=["stem", "reader"])


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
    model = parse(_exported()[1])
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
    (weight,) = read_weights(parse(content))
    np.testing.assert_array_equal(weight.values, model.layers[1].kernel)
    assert weight.scales.size == 0 and weight.bias.dtype == np.float32
    with pytest.raises(errors.ExportError):
        flatbuffer.check(network, content[:100])
