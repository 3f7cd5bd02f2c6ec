"""LayerNormalization as a chain of operators of 16 bits."""

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

from export import flatbuffer, tflite
from export.interpreter import Interpreter
from export.model_file import operator_name, pack, parse
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    align,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness, layer_nets

layers = keras.layers
CHAIN = ["CAST", "FULLY_CONNECTED", "FULLY_CONNECTED", "SUB", "RESHAPE"]
CHAIN += 2 * ["BATCH_MATMUL", "RSQRT"] + ["MINIMUM", "FULLY_CONNECTED", "MUL"]
CHAIN += ["RESHAPE", "BATCH_MATMUL", "FULLY_CONNECTED", "MUL", "ADD", "RSQRT"]
CHAIN += ["FULLY_CONNECTED", "MUL", "FULLY_CONNECTED", "ADD", "QUANTIZE"]


def _twin(bits=8, shape=(8, 8, 24)):
    """A convolution, and a norm whose output is that of the model."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(24, 3, padding="same", name="stem")(inputs)
    x = layers.Reshape(shape)(x)
    outputs = layers.LayerNormalization(name="norm")(x)
    model = layer_nets.randomized(lambda: keras.Model(inputs, outputs))
    generator = np.random.default_rng(0)
    norm = model.get_layer("norm")
    norm.gamma.assign(generator.normal(1.0, 0.3, norm.gamma.shape))
    scheme = BitScheme(8, bits, first_last_bits=8)
    twin = quantize_model(model, scheme)
    calibrate(twin, harness.calibration_data())
    return twin


def _network(*args, **kwargs):
    return inference_model(_twin(*args, **kwargs))


@pytest.mark.parametrize("shape", [(8, 8, 24), (64, 24), (1536,)], ids=str)
def test_file_holds_the_chain(shape):
    network = _network(shape=shape)
    content = tflite.convert(network)
    flatbuffer.check(network, content)
    model = parse(content)
    kinds = [operator_name(model, op) for op in model.subgraphs[0].operators]
    start = kinds.index("CAST")
    assert kinds[start : start + len(CHAIN)] == CHAIN
    rest = {*kinds[:start], *kinds[start + len(CHAIN) :]}
    assert rest == {"CONV_2D", "RESHAPE"}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_file_normalizes(bits):
    """Few values end on the neighbour of the level that floats choose."""
    network = _network(bits)
    images = harness.test_images()[:32]
    wanted = network.model(images).numpy()
    (grid,) = (
        layer for layer in network.model.layers if layer.name == "norm_grid"
    )
    found = _run(tflite.convert(network), images)
    off = np.abs(found.reshape(wanted.shape) - wanted) / grid.step_size
    assert np.isfinite(off).all() and np.ptp(wanted) > 20 * grid.step_size
    assert off.max() < 1.01
    assert (off > 0.5).mean() < 0.01


def test_an_aligned_model_is_its_file():
    twin = _twin()
    align(twin)
    images = harness.test_images()
    network = inference_model(twin)
    step = network.model.get_layer("norm_grid").step_size
    found = _run(tflite.convert(network), images)
    wanted = twin(images).numpy()
    off = np.abs(found.reshape(wanted.shape) - wanted) / step
    assert (off > 0.5).mean() < 1e-5
    float_norms = network.model(images).numpy()
    off = np.abs(float_norms - wanted) / step
    assert (off > 0.5).mean() > 1e-4


def _run(content, images):
    """Returns the outputs of a file that are no logits."""
    runtime = litert.Interpreter(model_content=content)
    (inputs,), (outputs,) = (
        runtime.get_input_details(),
        runtime.get_output_details(),
    )
    runtime.resize_tensor_input(inputs["index"], images.shape)
    runtime.allocate_tensors()
    scale, zero_point = inputs["quantization"]
    levels = np.clip(np.rint(images / scale) + zero_point, -128, 127)
    runtime.set_tensor(inputs["index"], levels.astype(np.int8))
    runtime.invoke()
    scale, zero_point = outputs["quantization"]
    return (runtime.get_tensor(outputs["index"]) - np.float32(zero_point)) * (
        scale
    )


@pytest.mark.parametrize("part", ["gamma", "beta", "epsilon"])
def test_changed_constants_are_found(part):
    network = _network()
    model = parse(tflite.convert(network))
    (tensor,) = (
        tensor
        for tensor in model.subgraphs[0].tensors
        if tensor.name == f"norm/{part}".encode()
    )
    data = np.array(model.buffers[tensor.buffer].data)
    data[0] ^= 1
    model.buffers[tensor.buffer].data = data
    with pytest.raises(errors.ExportError, match=f"'norm/{part}' has other"):
        flatbuffer.check(network, pack(model))


def test_a_missing_constant_is_named():
    network = _network()
    model = parse(tflite.convert(network))
    for tensor in model.subgraphs[0].tensors:
        if tensor.name == b"norm/beta":
            tensor.name = b"other"
    with pytest.raises(errors.ExportError, match="no constant 'norm/beta'"):
        flatbuffer.check(network, pack(model))


def test_runs_through_the_interpreter():
    """In batches of any size, as every file."""
    build = layer_nets.NETS["layer_norm"]
    twin = quantize_model(layer_nets.randomized(build), BitScheme(8, 8))
    calibrate(twin, harness.calibration_data())
    content = tflite.convert(inference_model(twin))
    images = harness.test_images()[:50]
    one = Interpreter(content, batch_size=1).output_levels(images)
    many = Interpreter(content, batch_size=32).output_levels(images)
    np.testing.assert_array_equal(one, many)


def test_a_norm_that_may_be_float_is():
    network = _network()
    content = tflite.convert(network, allow_float=["norm"])
    flatbuffer.check(network, content, ["norm"])
    assert "RSQRT" in flatbuffer.float_operators(parse(content))
    images = harness.test_images()[:32]
    wanted = network.model(images).numpy()
    step = network.model.get_layer("norm_grid").step_size
    found = _run(content, images).reshape(wanted.shape)
    off = np.abs(found - wanted) / step
    assert off.max() < 1.01 and (off > 0.5).mean() < 1e-3
    with pytest.raises(errors.ExportError, match="computes in float"):
        flatbuffer.check(network, content)
