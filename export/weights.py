"""The weights of a TensorFlow Lite file: written and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.model_file import damage_reported, operator_name, pack, parse
from export.packing import fewest_bits, packed, unpacked
from qgen_tf import errors

if TYPE_CHECKING:  # reading a file takes no TensorFlow
    from qgen_tf.quantization.grids import WeightGrid

# storage of weights to the fewest bits that one takes
STORAGES = {"int8": 8, "int4": 4, "int2": 2}

# an operator of this version reads every weight of 8 bits
_INT8_VERSION = 6
# number of bits of a level to the type of its tensor
TYPES = {
    2: schema.TensorType.INT2,
    4: schema.TensorType.INT4,
    8: schema.TensorType.INT8,
}
_NUM_BITS = {kind: num_bits for num_bits, kind in TYPES.items()}
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an operator holds its weight, which is its input 1.

    Attributes:
      axes: those of the file, in the order of Keras.
      channels: axis of the file that a step size for each channel is along.
      data: which input is that of the layer.
      bias: which input is the bias.
      per_axis: whether there must be a step size for each channel.
      versions: number of bits below 8 to the version of the operator that
        reads them, if one does.
    """

    axes: tuple[int, ...]
    channels: int = 0
    data: int = 0
    bias: int = 2
    per_axis: bool = True
    versions: Mapping[int, int] = dataclasses.field(default_factory=dict)


# the operators that have weights
LAYOUTS = {
    "CONV_2D": Layout((1, 2, 3, 0), versions={4: 7}),
    "DEPTHWISE_CONV_2D": Layout((0, 1, 2, 3), channels=3, versions={4: 7}),
    "FULLY_CONNECTED": Layout((1, 0), per_axis=False, versions={4: 10, 2: 14}),
    "TRANSPOSE_CONV": Layout((1, 2, 0, 3), data=2, bias=3),
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
      num_bits: bits that one of the values takes in the file: 2, 4, 8 or 32.
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
    model: schema.ModelT, grids: Mapping[str, WeightGrid]
) -> None:
    """Puts weights and biases in the place of the placeholders of a file.

    Weights are stored in 8 bits.

    Args:
      model: converted from a graph in which the layers of `grids` are
        `PlaceholderLinear`s; it is changed.
      grids: name of a layer to its grid, in the order of the numbers.

    Raises:
      ExportError: the operator of a layer is missing.
    """
    names: dict[float | None, str] = dict(enumerate(grids, start=1))
    for operator in model.subgraphs[0].operators:
        name = names.pop(placeholder_number(model, operator), None)
        if name is not None:
            _write(model, operator, name, grids[name])
    if names:
        raise errors.ExportError(
            "the converter made no integer operator of the layers "
            f"{list(names.values())}."
        )
    _forget_unused_buffers(model)


@damage_reported()
def set_storage(model: schema.ModelT, storage: str) -> None:
    """Stores the integer weights of a file in the fewest bits that it may.

    Args:
      model: is changed; its levels stay what they are.
      storage: a key of `STORAGES`; see `tflite.convert`.
    """
    operators = [
        operator
        for operator in linear_operators(model)
        if _input(model, operator, 1).type in _NUM_BITS
    ]
    for operator in operators:
        if _NUM_BITS[_input(model, operator, 1).type] < 8:
            # not all kernels register the versions of fewer bits
            code = model.operatorCodes[operator.opcodeIndex]
            code.version = min(code.version, _INT8_VERSION)
    for operator in operators:
        _store(model, operator, storage)
    _forget_unused_buffers(model)


def expand(content: bytes) -> bytes:
    """Returns a file with all weights stored in 8 bits.

    The runtime then takes its fast operators, which round as the network does.
    It has none of those for convolutions of 4 bits, and none at all for those
    of 2 bits.
    """
    model = parse(content)
    set_storage(model, "int8")
    return pack(model)


def placeholder_number(
    model: schema.ModelT, operator: schema.OperatorT
) -> float | None:
    """Returns the step size of an operator's int8 weight, if it has one."""
    if operator_name(model, operator) not in LAYOUTS:
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
) -> None:
    layout = LAYOUTS[operator_name(model, operator)]
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
    weight.buffer = _add_buffer(model, levels)
    bias.name = f"{name}/bias"
    bias.quantization = _quantization(scales * data.quantization.scale, 0)
    bias.buffer = _add_buffer(model, np.asarray(grid.bias_levels))


def _store(
    model: schema.ModelT, operator: schema.OperatorT, storage: str
) -> None:
    weight = _input(model, operator, 1)
    levels = _values(model, weight)
    num_bits = max(fewest_bits(levels), STORAGES[storage])
    versions = LAYOUTS[operator_name(model, operator)].versions
    # 2 bits are expanded when the file is loaded, 4 are to run as they are
    if num_bits == 4 and 4 not in versions:
        num_bits = 8
    if weight.type != TYPES[num_bits]:
        weight.type = TYPES[num_bits]
        weight.buffer = _add_buffer(model, packed(levels, num_bits))
    code = model.operatorCodes[operator.opcodeIndex]
    code.version = max(code.version, versions.get(num_bits, 1))


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


@damage_reported()
def read_weights(model: schema.ModelT) -> list[FileWeight]:
    """Returns the weights of a file, in the order of its operators.

    Raises:
      ExportError: the file is damaged.
    """
    return [_read(model, operator) for operator in linear_operators(model)]


def linear_operators(model: schema.ModelT) -> Iterator[schema.OperatorT]:
    """Yields the operators with the weights of a layer.

    Those that read 16 bits are parts of a LayerNormalization.
    """
    for operator in model.subgraphs[0].operators:
        layout = LAYOUTS.get(operator_name(model, operator))
        if layout is not None and (
            _input(model, operator, layout.data).type != schema.TensorType.INT16
        ):
            yield operator


def _read(model: schema.ModelT, operator: schema.OperatorT) -> FileWeight:
    kind = operator_name(model, operator)
    layout = LAYOUTS[kind]
    weight = _input(model, operator, 1)
    values = _values(model, weight)
    quantization = weight.quantization
    is_float = quantization is None or quantization.scale is None
    return FileWeight(
        operator=kind,
        name=weight.name.decode(),
        values=values.transpose(layout.axes),
        num_bits=_NUM_BITS.get(weight.type, 32),
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
    if not _has_input(operator, index):
        raise errors.ExportError(
            f"an operator {operator_name(model, operator)} of the file lacks "
            f"its input {index}."
        )
    return model.subgraphs[0].tensors[operator.inputs[index]]


def _values(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    if num_bits := _NUM_BITS.get(tensor.type):
        size = int(np.prod(tensor.shape))
        return unpacked(data, num_bits, size).reshape(tensor.shape)
    return data.view(_DTYPES[tensor.type]).reshape(tensor.shape)
