"""Whether a TensorFlow Lite file is one that can be read without surprises.

A flatbuffer is a net of offsets, and reading it in Python follows them: past
the end of the file that fails, but within it offsets may lead anywhere, any
number of times. What is read here is bounded by the size of the file, and each
number that stands for a place or a size is compared with what is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qgen_tf import errors

# far above any network's number of tensors, operators or buffers
_MOST_ENTRIES = 2**16
# a tensor of more bytes is no part of a network that the runtime can hold
_MOST_BYTES = 2**31 - 1

_NUM_BITS = {
    getattr(schema.TensorType, name): num_bits
    for num_bits, names in {
        2: ("INT2",),
        4: ("INT4",),
        8: ("BOOL", "INT8", "UINT8"),
        16: ("BFLOAT16", "FLOAT16", "INT16", "UINT16"),
        32: ("FLOAT32", "INT32", "UINT32"),
        64: ("FLOAT64", "INT64", "UINT64"),
    }.items()
    for name in names
}
_BUILTIN_CODES = {
    code
    for name, code in vars(schema.BuiltinOperator).items()
    if not name.startswith("_")
}


class Content(bytes):
    """A file that lets as many bytes of strings be read as it has.

    Tables can share a string, so that a small file could name a long one any
    number of times, and each would be copied.
    """

    def __init__(self, *_: Any):
        self._left = len(self)

    def __getitem__(self, index: Any) -> Any:
        """Returns a part of the file, as the flatbuffer reads a string."""
        part = super().__getitem__(index)
        if isinstance(index, slice):
            self._left -= len(part)
            _require(self._left >= 0, "its strings are longer than the file")
        return part


def require_modest(content: bytes) -> None:
    """Raises an ExportError if the file unfolds to far more than it is.

    Args:
      content: that begins like a TensorFlow Lite file; what is wrong with its
        offsets raises whatever the flatbuffer raises.
    """
    model = schema.Model.GetRootAs(content)
    functions = max(model.SubgraphsLength(), model.SignatureDefsLength())
    _require(model.SubgraphsLength() > 0, "it has no graph")
    if functions > 1:
        raise errors.ExportError(
            f"this TensorFlow Lite file holds {functions} functions: it must "
            "hold one."
        )
    graph = model.Subgraphs(0)
    signatures = [
        model.SignatureDefs(index)
        for index in range(model.SignatureDefsLength())
    ]
    for length in (
        model.BuffersLength(),
        model.OperatorCodesLength(),
        model.MetadataLength(),
        model.ExternalBufferGroupsLength(),
        model.ExternalBuffersLength(),
        graph.TensorsLength(),
        graph.OperatorsLength(),
        *(signature.InputsLength() for signature in signatures),
        *(signature.OutputsLength() for signature in signatures),
    ):
        _require(length <= _MOST_ENTRIES, f"it lists {length} things of a kind")
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        if tensor.Sparsity() or tensor.VariantTensorsLength():
            raise errors.ExportError(
                f"tensor {index} of this TensorFlow Lite file is sparse or "
                "holds tensors: only dense numbers are read."
            )


def require_well_formed(model: schema.ModelT) -> None:
    """Raises an ExportError unless what refers to something finds it.

    What may be left out of a file becomes empty: lists, shapes and names.
    """
    (graph,) = model.subgraphs
    for holder, names in (
        (model, ("operatorCodes", "buffers", "metadata")),
        (graph, ("tensors", "operators")),
    ):
        for name in names:
            setattr(holder, name, getattr(holder, name) or [])
    _fill_in(graph, "inputs", "outputs")
    for code in model.operatorCodes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        _require(number in _BUILTIN_CODES, f"operator code {number} is unknown")
    for index, buffer in enumerate(model.buffers):
        _require(
            not (buffer.offset or buffer.size),
            f"buffer {index} lies outside of the flatbuffer",
        )
    for entry in model.metadata:
        _require_indices("metadata", [entry.buffer], model.buffers)
    for index, tensor in enumerate(graph.tensors):
        _require_tensor(f"tensor {index}", tensor, model.buffers)
    for index, operator in enumerate(graph.operators):
        what = f"operator {index}"
        _fill_in(operator, "inputs", "outputs")
        _require_indices(what, [operator.opcodeIndex], model.operatorCodes)
        # -1 stands for an input that is left out
        given = [number for number in operator.inputs if number != -1]
        _require_indices(what, given, graph.tensors)
        _require_indices(what, operator.outputs, graph.tensors)
    _require_indices("the graph", graph.inputs, graph.tensors)
    _require_indices("the graph", graph.outputs, graph.tensors)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise errors.ExportError(
            f"this TensorFlow Lite file is damaged: {what}."
        )


def _require_indices(what: str, indices: Iterable[int], things: list) -> None:
    for index in indices:
        _require(
            0 <= index < len(things),
            f"{what} refers to number {index} of {len(things)}",
        )


def _fill_in(holder: Any, *names: str) -> None:
    for name in names:
        if getattr(holder, name) is None:
            setattr(holder, name, np.zeros(0, np.int32))


def _require_tensor(
    what: str, tensor: schema.TensorT, buffers: list[schema.BufferT]
) -> None:
    _fill_in(tensor, "shape")
    tensor.name = tensor.name or b""
    tensor.name.decode()
    _require(tensor.type in _NUM_BITS, f"{what} has the type {tensor.type}")
    _require(not tensor.externalBuffer, f"{what} lies in another file")
    shape = [int(size) for size in tensor.shape]
    num_bytes = -(-math.prod(shape) * _NUM_BITS[tensor.type] // 8)
    _require(
        min(shape, default=0) >= 0 and num_bytes <= _MOST_BYTES,
        f"{what} has the shape {shape}",
    )
    _require_indices(what, [tensor.buffer], buffers)
    data = buffers[tensor.buffer].data
    _require(
        data is None or not len(data) or len(data) == num_bytes,
        f"{what} of {num_bytes} bytes has {0 if data is None else len(data)}",
    )
    _require_quantization(what, tensor.quantization, shape)


def _require_quantization(
    what: str,
    quantization: schema.QuantizationParametersT | None,
    shape: list[int],
) -> None:
    if quantization is None or quantization.scale is None:
        return
    scales, zero_points = quantization.scale, quantization.zeroPoint
    _require(
        zero_points is None or len(zero_points) == len(scales),
        f"{what} has not as many zero points as scales",
    )
    _require(
        bool(np.isfinite(scales).all() and (scales >= 0.0).all()),
        f"{what} has scales that are not positive numbers",
    )
    axis = quantization.quantizedDimension
    _require(
        len(scales) <= 1
        or (0 <= axis < len(shape) and shape[axis] == len(scales)),
        f"{what} has {len(scales)} scales along axis {axis} of {shape}",
    )
