"""TensorFlow Lite files of one operator with weights, to try a runtime on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.file_graph import FileGraph
from export.packing import packed
from export.weights import LAYOUTS, TYPES


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What sets the operators apart.

    Attributes:
      options: settings: no padding, strides of 1.
      inputs: shape of the input: what the kernel covers, or one pixel.
      weight: shape of the weight, as the file has it.
      outputs: shape of the output.
      sums: what is computed, in the notation of `numpy.einsum`.
    """

    options: Any
    inputs: tuple[int, ...]
    weight: tuple[int, ...]
    outputs: tuple[int, ...]
    sums: str


_VALID = schema.Padding.VALID
_KINDS = {
    "CONV_2D": _Kind(
        schema.Conv2DOptionsT(_VALID, 1, 1),
        inputs=(1, 3, 3, 16),
        weight=(2048, 3, 3, 16),
        outputs=(1, 1, 1, 2048),
        sums="nhwc,ohwc->no",
    ),
    "DEPTHWISE_CONV_2D": _Kind(
        schema.DepthwiseConv2DOptionsT(_VALID, 1, 1, depthMultiplier=1),
        inputs=(1, 3, 3, 2048),
        weight=(1, 3, 3, 2048),
        outputs=(1, 1, 1, 2048),
        sums="nhwc,nhwc->nc",
    ),
    "FULLY_CONNECTED": _Kind(
        schema.FullyConnectedOptionsT(),
        inputs=(1, 144),
        weight=(2048, 144),
        outputs=(1, 2048),
        sums="nc,oc->no",
    ),
    "TRANSPOSE_CONV": _Kind(
        schema.TransposeConvOptionsT(_VALID, 1, 1),
        inputs=(1, 1, 1, 16),
        weight=(256, 3, 3, 16),
        outputs=(1, 3, 3, 256),
        sums="nyxc,ohwc->nhwo",
    ),
}
OPERATORS = tuple(_KINDS)


@dataclasses.dataclass(frozen=True)
class OperatorFile:
    """A file of one operator, and what it must compute.

    Attributes:
      content: of the file. Input and output are int8 with a scale of 1; the
        output is flat.
      inputs: float32 whole numbers, one example.
      outputs: int8 [1, values]; the sums of products, rounded once.
    """

    content: bytes
    inputs: np.ndarray
    outputs: np.ndarray


def operator_file(operator: str, num_bits: int, *, seed: int) -> OperatorFile:
    """Makes a file with random weights.

    Args:
      operator: one of `OPERATORS`.
      num_bits: 2, 4 or 8; of the weights and of their storage.
      seed: of inputs, weights and bias.
    """
    kind = _KINDS[operator]
    generator = np.random.default_rng(seed)
    inputs = generator.integers(-128, 128, kind.inputs, np.int8)
    limit = 2 ** (num_bits - 1) - 1
    levels = generator.integers(-limit, limit + 1, kind.weight, np.int8)
    sums = np.einsum(kind.sums, inputs.astype(np.int32), levels)
    bias = generator.integers(-100, 101, sums.shape[-1], np.int32)
    sums = sums + bias
    # spreads the outputs over int8, and clips a few
    scale = np.float32(50.0 / sums.std())
    outputs = np.clip(np.rint(sums * np.float64(scale)), -128, 127)
    return OperatorFile(
        content=_content(operator, num_bits, levels, bias, scale),
        inputs=inputs.astype(np.float32),
        outputs=outputs.astype(np.int8).reshape(1, -1),
    )


def _content(
    operator: str,
    num_bits: int,
    levels: np.ndarray,
    bias: np.ndarray,
    scale: np.float32,
) -> bytes:
    kind, layout = _KINDS[operator], LAYOUTS[operator]
    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    scales = [float(scale)] * bias.size
    shape = np.array(kind.outputs, np.int32)
    flat_shape = np.array([1, shape.prod()], np.int32)
    weight_data = packed(levels, num_bits)
    graph = FileGraph()
    inputs = graph.tensor(kind.inputs, int8, [1.0])
    weight = graph.tensor(
        kind.weight, TYPES[num_bits], scales, layout.channels, weight_data
    )
    biases = graph.tensor(bias.shape, int32, scales, data=bias)
    outputs = graph.tensor(shape, int8, [1.0])
    flat = graph.tensor(flat_shape, int8, [1.0])
    operands = {layout.data: inputs, 1: weight, layout.bias: biases}
    if layout.data != 0:
        operands[0] = graph.tensor(shape.shape, int32, data=shape)
    graph.operator(
        operator,
        [operands[index] for index in sorted(operands)],
        outputs,
        kind.options,
        version=layout.versions.get(num_bits, 1),
    )
    graph.operator(
        "RESHAPE",
        [outputs, graph.tensor(flat_shape.shape, int32, data=flat_shape)],
        flat,
        schema.ReshapeOptionsT(newShape=flat_shape),
    )
    return graph.file(inputs, flat)
