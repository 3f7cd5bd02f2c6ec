"""The weights of a TensorFlow Lite file: written and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.model_file import operator_name, pack, parse
from qgen_tf import errors
from qgen_tf.quantization.grids import WeightGrid

_INT4_HIGH = 7
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT32: np.int32,
}


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How an operator holds its weight, which is its input 1.

    Attributes:
      axes: those of the file, in the order of Keras.
      channels: axis of the file that a step size for each channel is along.
      data: which input is that of the layer.
      bias: which input is the bias.
      per_axis: whether there must be a step size for each channel.
      int4_version: version of the operator that reads 4 bits, if any does.
    """

    axes: tuple[int, ...]
    channels: int = 0
    data: int = 0
    bias: int = 2
    per_axis: bool = True
    int4_version: int | None = None


_LAYOUTS = {
    "CONV_2D": _Layout((1, 2, 3, 0), int4_version=7),
    "DEPTHWISE_CONV_2D": _Layout((0, 1, 2, 3), channels=3, int4_version=7),
    "FULLY_CONNECTED": _Layout((1, 0), per_axis=False, int4_version=10),
    "TRANSPOSE_CONV": _Layout((1, 2, 0, 3), data=2, bias=3),
}


@dataclasses.dataclass(frozen=True)
class FileWeight:
    """Weight and bias of one operator of a file, in the layout of Keras.

    Attributes:
      operator: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED or TRANSPOSE_CONV.
      name: of the layer if the weight is quantized, else the converter's.
      values: int8 levels or float32 weights; (height, width, input, output) of
        a convolution, (height, width, output, input) of a transposed one,
        (1, height, width, channels) of a depthwise one, (input, output) of a
        dense one.
      num_bits: bits that one of the values takes in the file: 4, 8 or 32.
      scales: float32, one, or one for each output channel; empty if float.
      zero_points: int64, like `scales`.
      bias: int32 levels or float32, [output channels].
    """

    operator: str
    name: str
    values: np.ndarray
    num_bits: int
    scales: np.ndarray
    zero_points: np.ndarray
    bias: np.ndarray


def write_weights(
    model: schema.ModelT, grids: Mapping[str, WeightGrid], *, storage: str
) -> None:
    """Puts weights and biases in the place of the placeholders of a file.

    Args:
      model: converted from a graph in which the layers of `grids` are
        `PlaceholderLinear`s; it is changed.
      grids: name of a layer to its grid, in the order of the numbers.
      storage: "int8", or "int4" to pack what fits.

    Raises:
      ExportError: the operator of a layer is missing.
    """
    names: dict[float | None, str] = dict(enumerate(grids, start=1))
    for operator in model.subgraphs[0].operators:
        name = names.pop(_placeholder_number(model, operator), None)
        if name is not None:
            _write(model, operator, name, grids[name], storage)
    if names:
        raise errors.ExportError(
            "the converter made no integer operator of the layers "
            f"{list(names.values())}."
        )
    _forget_unused_buffers(model)


def expand(content: bytes) -> bytes:
    """Returns a file with all weights stored in 8 bits.

    The runtime then takes its fast operators, which round as the network does;
    it has none of those for convolutions of 4 bits.
    """
    model = parse(content)
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) in _LAYOUTS:
            weight = _input(model, operator, 1)
            if weight.type == schema.TensorType.INT4:
                values = _values(model, weight)
                weight.type = schema.TensorType.INT8
                weight.buffer = _add_buffer(model, values)
    _forget_unused_buffers(model)
    return pack(model)


def _placeholder_number(
    model: schema.ModelT, operator: schema.OperatorT
) -> float | None:
    """Returns the step size of an operator's int8 weight, if it has one."""
    if operator_name(model, operator) not in _LAYOUTS:
        return None
    weight = _input(model, operator, 1)
    if weight.type != schema.TensorType.INT8:
        return None
    return weight.quantization.scale[0]


def _write(
    model: schema.ModelT,
    operator: schema.OperatorT,
    name: str,
    grid: WeightGrid,
    storage: str,
) -> None:
    layout = _LAYOUTS[operator_name(model, operator)]
    weight, bias, data = (
        _input(model, operator, index)
        for index in (1, layout.bias, layout.data)
    )
    shape = np.asarray(weight.shape)
    levels = grid.levels.reshape(shape[list(layout.axes)])
    levels = levels.transpose(np.argsort(layout.axes))
    scales = grid.step_size.reshape(-1)
    if layout.per_axis:
        scales = np.broadcast_to(scales, shape[layout.channels])
    weight.name = name
    weight.quantization = _quantization(scales, layout.channels)
    if storage == "int4" and layout.int4_version and _fits_int4(levels):
        code = model.operatorCodes[operator.opcodeIndex]
        code.version = max(code.version, layout.int4_version)
        weight.type = schema.TensorType.INT4
        levels = _packed(levels)
    weight.buffer = _add_buffer(model, levels)
    bias.name = f"{name}/bias"
    bias.quantization = _quantization(scales * data.quantization.scale, 0)
    bias.buffer = _add_buffer(model, np.asarray(grid.bias_levels))


def _quantization(
    scales: np.ndarray, axis: int
) -> schema.QuantizationParametersT:
    quantization = schema.QuantizationParametersT()
    quantization.scale = scales.astype(np.float32)
    quantization.zeroPoint = np.zeros(scales.shape, np.int64)
    quantization.quantizedDimension = axis
    return quantization


def _add_buffer(model: schema.ModelT, values: np.ndarray) -> int:
    """Appends a buffer, since the converter lets equal tensors share one."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _forget_unused_buffers(model: schema.ModelT) -> None:
    used = {entry.buffer for entry in model.metadata or ()}
    for graph in model.subgraphs:
        used.update(tensor.buffer for tensor in graph.tensors)
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def read_weights(model: schema.ModelT) -> list[FileWeight]:
    """Returns the weights of a file, in the order of its operators."""
    return [
        _read(model, operator)
        for operator in model.subgraphs[0].operators
        if operator_name(model, operator) in _LAYOUTS
    ]


def _read(model: schema.ModelT, operator: schema.OperatorT) -> FileWeight:
    kind = operator_name(model, operator)
    layout = _LAYOUTS[kind]
    weight = _input(model, operator, 1)
    values = _values(model, weight)
    num_bits = 8 * values.dtype.itemsize
    quantization = weight.quantization
    is_float = quantization is None or quantization.scale is None
    return FileWeight(
        operator=kind,
        name=weight.name.decode(),
        values=values.transpose(layout.axes),
        num_bits=4 if weight.type == schema.TensorType.INT4 else num_bits,
        scales=np.array(() if is_float else quantization.scale, np.float32),
        zero_points=np.array(
            () if is_float else quantization.zeroPoint, np.int64
        ),
        # zeros may be left out
        bias=_values(model, _input(model, operator, layout.bias))
        if _has_input(operator, layout.bias)
        else np.zeros(
            values.shape[layout.channels], np.float32 if is_float else np.int32
        ),
    )


def _has_input(operator: schema.OperatorT, index: int) -> bool:
    return index < len(operator.inputs) and operator.inputs[index] >= 0


def _input(
    model: schema.ModelT, operator: schema.OperatorT, index: int
) -> schema.TensorT:
    return model.subgraphs[0].tensors[operator.inputs[index]]


def _values(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    if tensor.type == schema.TensorType.INT4:
        return _unpacked(data, int(np.prod(tensor.shape))).reshape(tensor.shape)
    return data.view(_DTYPES[tensor.type]).reshape(tensor.shape)


def _fits_int4(levels: np.ndarray) -> bool:
    return int(np.abs(levels).max()) <= _INT4_HIGH


def _packed(levels: np.ndarray) -> np.ndarray:
    """Puts two levels into a byte, the first one into the lower half."""
    halves = np.zeros((levels.size + 1) // 2 * 2, np.uint8)
    halves[: levels.size] = levels.astype(np.uint8).reshape(-1) & 0xF
    return halves[::2] | halves[1::2] << 4


def _unpacked(data: np.ndarray, size: int) -> np.ndarray:
    """Inverts `_packed`."""
    halves = np.stack([data << 4, data], axis=-1).reshape(-1)
    return halves[:size].view(np.int8) >> 4
