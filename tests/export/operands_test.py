import numpy as np
import pytest

from export import flatbuffer, tflite
from export.interpreter import Interpreter
from export.model_file import operator_name, parse
from export.operands import can_be_centered
from export.runtime_model import runtime_model
from qgen_tf.compat import keras
from qgen_tf.layers import MatMul
from qgen_tf.quantization import BitScheme
from qgen_tf.quantization.grids import ActivationGrid
from tests import harness, layer_nets
from tests.export.files import deployed

layers = keras.layers


def _network(bits, quantizer="lsq"):
    """A product of features that other layers read as well."""

    def middle(x):
        x = layers.Reshape((36, 6))(x)
        scores = MatMul(transpose_b=True, name="scores")(
            [layers.Dense(6)(x), x]
        )
        return MatMul(name="context")([scores, x])

    return deployed(
        layer_nets._net(middle)(), BitScheme(8, bits, quantizer=quantizer)
    )


def _mean(bits, quantizer="lsq"):
    """A mean of many values, of few bits each."""

    def middle(x):
        x = layers.Dense(24)(x)
        return layers.GlobalAveragePooling2D(name="mean")(x)

    return deployed(
        layer_nets._net(middle)(), BitScheme(8, bits, quantizer=quantizer)
    )


def _operands(content, reader, operand):
    """Yields who writes an operand, its grid and that of what is written."""
    model = parse(content)
    graph = model.subgraphs[0]
    writers = {op.outputs[0]: op for op in graph.operators}
    for operator in graph.operators:
        if operator_name(model, operator) == reader:
            number = operator.inputs[operand]
            source = graph.tensors[writers[number].inputs[0]]
            yield (
                operator_name(model, writers[number]),
                graph.tensors[number].quantization,
                source.quantization,
            )


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize(
    ("build", "reader", "operand", "count"),
    [(_network, "BATCH_MATMUL", 1, 2), (_mean, "MEAN", 0, 1)],
)
def test_few_bits_are_moved_to_zero(bits, build, reader, operand, count):
    network = build(bits)
    content = tflite.convert(network)
    flatbuffer.check(network, content)
    found = list(_operands(content, reader, operand))
    assert len(found) == count
    for name, centered, source in found:
        assert name == "QUANTIZE"
        assert list(centered.zeroPoint) == [0] != list(source.zeroPoint)
        assert centered.scale == source.scale  # to the bit


@pytest.mark.parametrize(
    ("build", "reader", "operand", "writers"),
    [
        (_network, "BATCH_MATMUL", 1, ["RESHAPE", "RESHAPE"]),
        (_mean, "MEAN", 0, ["RESHAPE"]),
    ],
)
def test_eight_bits_stay(build, reader, operand, writers):
    """The levels around zero are there, others have no room."""
    for quantizer, is_zero in (("lsq", True), ("lsq_plus", False)):
        content = tflite.convert(build(8, quantizer))
        found = list(_operands(content, reader, operand))
        assert [name for name, _, _ in found] == writers
        for _, grid, _ in found:
            assert (grid.zeroPoint[0] == 0) == is_zero


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("build", [_network, _mean])
def test_the_runtime_rounds_them_once(bits, build):
    """XNNPACK as the network does; to its own kernels it is all the same."""
    network = build(bits)
    content = tflite.convert(network)
    images = harness.test_images()

    def levels(model):
        return np.rint(model(images).numpy() / harness.output_step(network))

    for kernels in ("xnnpack", "reference"):
        found = Interpreter(content, kernels=kernels).output_levels(images)
        assert len(np.unique(found)) > 3
        twin = runtime_model(network, kernels=kernels)
        np.testing.assert_array_equal(found, levels(twin))
        if kernels == "xnnpack":  # but for sums of float32 that are off
            assert np.mean(found != levels(network.model)) < 0.001


@pytest.mark.parametrize(
    ("bits", "zero_point", "fits"),
    [(7, 0, True), (7, 127, True), (8, 128, True), (8, 127, False)],
)
def test_what_fits_into_int8(bits, zero_point, fits):
    grid = ActivationGrid(0.1, bits, zero_point)
    assert (
        can_be_centered(grid) == fits == (grid.low >= -128 and grid.high < 128)
    )
