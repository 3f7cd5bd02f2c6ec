"""Reads a TensorFlow Lite file back and holds it against the network."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qgen_tf import errors
from qgen_tf.quantization import graph as keras_graph
from qgen_tf.quantization.grids import WeightGrid
from qgen_tf.quantization.inference import InferenceModel

_FLOATS = {
    schema.TensorType.FLOAT16,
    schema.TensorType.FLOAT32,
    schema.TensorType.FLOAT64,
}
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT32: np.int32,
}
_OPERATORS = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if not name.startswith("_")
}


@dataclasses.dataclass(frozen=True)
class FileWeight:
    """Weight and bias of one operator of a file, in the layout of Keras.

    Attributes:
      operator: CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED.
      path: names of the operations that the weight comes from, as
        `model/layer/operation`, separated by semicolons.
      values: int8 levels or float32 weights; (height, width, input, output)
        of a convolution, (height, width, channels) of a depthwise one,
        (input, output) of a dense one.
      scales: float32, one, or one for each output channel; empty if float.
      zero_points: int64, like `scales`.
      bias: int32 levels or float32, [output channels].
    """

    operator: str
    path: str
    values: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    bias: np.ndarray

    def belongs_to(self, layer_name: str) -> bool:
        """Whether this is the weight of the layer of that name."""
        return any(
            part.partition("/")[2].startswith(f"{layer_name}/")
            for part in self.path.split(";")
        )


def parse(content: bytes) -> schema.ModelT:
    """Returns the object tree of a TensorFlow Lite file.

    Raises:
      ExportError: the content is not such a file.
    """
    if content[4:8] != b"TFL3":
        raise errors.ExportError(
            "this is not a TensorFlow Lite file: it lacks the TFL3 mark."
        )
    with _damage_reported():
        return schema.ModelT.InitFromPackedBuf(content, 0)


@contextlib.contextmanager
def _damage_reported() -> Iterator[None]:
    """Turns what goes wrong while a file is read into an ExportError."""
    try:
        yield
    except errors.ExportError:
        raise
    except Exception as error:
        raise errors.ExportError(
            f"this TensorFlow Lite file is damaged: {type(error).__name__}: "
            f"{error}"
        ) from error


def read_weights(model: schema.ModelT) -> list[FileWeight]:
    """Returns the weights of a file, in the order of its operators."""
    layouts = {
        "CONV_2D": lambda values: values.transpose(1, 2, 3, 0),
        "DEPTHWISE_CONV_2D": lambda values: values[0],
        "FULLY_CONNECTED": lambda values: values.transpose(),
    }
    graph = model.subgraphs[0]
    weights = []
    for operator in graph.operators:
        name = _operator_name(model, operator)
        if name not in layouts:
            continue
        _, weight, bias = operator.inputs
        tensor = graph.tensors[weight]
        values = layouts[name](_read(model, tensor))
        quantization = tensor.quantization
        is_float = quantization is None or quantization.scale is None
        weights.append(
            FileWeight(
                operator=name,
                path=tensor.name.decode(),
                values=values,
                scales=np.array(
                    () if is_float else quantization.scale, np.float32
                ),
                zero_points=np.array(
                    () if is_float else quantization.zeroPoint, np.int64
                ),
                # a bias of zeros may be left out
                bias=np.zeros(
                    values.shape[-1], np.float32 if is_float else np.int32
                )
                if bias < 0
                else _read(model, graph.tensors[bias]),
            )
        )
    return weights


def float_operators(model: schema.ModelT) -> list[str]:
    """Returns the names of operators that read or write floats."""
    graph = model.subgraphs[0]
    return [
        _operator_name(model, operator)
        for operator in graph.operators
        if any(
            graph.tensors[index].type in _FLOATS
            for index in [*operator.inputs, *operator.outputs]
            if index >= 0
        )
    ]


def check(network: InferenceModel, content: bytes) -> None:
    """Proves that a file holds the integers of the network it came from.

    Every weight level and bias must be the same integer, every weight scale
    and the scales of input and output the step size of the network, to one
    unit in the last place, no operator may compute in float, and no layer with
    weights may read values whose grid the converter made up. A network
    without quantized weights has no integers; its file need only be readable.

    Args:
      network: the deployed network.
      content: its TensorFlow Lite file.

    Raises:
      ExportError: names the first thing that differs.
    """
    model = parse(content)
    with _damage_reported():
        weights = read_weights(model)
        if network.weight_grids:
            _check_integers(network, model, weights)


def _check_integers(
    network: InferenceModel, model: schema.ModelT, weights: list[FileWeight]
) -> None:
    floats = float_operators(model)
    if floats:
        raise errors.ExportError(
            f"the file computes in float in {sorted(set(floats))}: a tensor "
            "beside these operators has no grid; quantize the layers there or "
            "remove them."
        )
    for name, grid in network.weight_grids.items():
        if grid.bias_levels is None:
            raise errors.ExportError(
                f"layer {name!r} reads values that have no grid: quantize the "
                "layer before it or remove that."
            )
        found = [weight for weight in weights if weight.belongs_to(name)]
        if len(found) != 1:
            raise errors.ExportError(
                f"the file holds {len(found)} weights of layer {name!r}, not 1."
            )
        _check_weight(name, grid, found[0])
    _check_ends(network, model)


def _check_weight(name: str, grid: WeightGrid, found: FileWeight) -> None:
    if found.values.size != grid.levels.size:
        raise errors.ExportError(
            f"layer {name!r}: the file holds {found.values.size} weight "
            f"levels, the network {grid.levels.size}."
        )
    levels = found.values.reshape(grid.levels.shape)
    wrong = int((levels != grid.levels).sum())
    if wrong:
        raise errors.ExportError(
            f"layer {name!r}: {wrong} of {levels.size} weight levels differ "
            "between the file and the network."
        )
    if found.zero_points.any():
        raise errors.ExportError(f"layer {name!r}: a zero point is not 0.")
    channels = grid.step_size.reshape(-1)
    _check_scales(f"layer {name!r}: weight", found.scales, channels)
    wrong = int((found.bias != grid.bias_levels).sum())
    if wrong:
        raise errors.ExportError(
            f"layer {name!r}: {wrong} of {found.bias.size} bias integers "
            "differ between the file and the network."
        )


def _check_ends(network: InferenceModel, model: schema.ModelT) -> None:
    tensors = model.subgraphs[0].tensors
    readers = keras_graph.consumers(network.model)
    first = readers[network.model.inputs[0].node.layer.name]
    last = [tensor.node.layer for tensor in network.model.outputs]
    for what, indices, (layer, *_) in (
        ("input", model.subgraphs[0].inputs, first),
        ("output", model.subgraphs[0].outputs, last),
    ):
        (index,) = indices
        found = np.array(tensors[index].quantization.scale)
        _check_scales(what, found, np.array([layer.step_size], np.float32))


def _check_scales(what: str, found: np.ndarray, wanted: np.ndarray) -> None:
    off = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    if not (off <= np.spacing(np.abs(wanted))).all():
        worst = int(np.argmax(off / wanted))
        raise errors.ExportError(
            f"{what} scale {np.broadcast_to(found, off.shape)[worst]} in the "
            f"file is not the step size "
            f"{np.broadcast_to(wanted, off.shape)[worst]} of the network."
        )


def _operator_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _read(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(_DTYPES[tensor.type]).reshape(tensor.shape)
