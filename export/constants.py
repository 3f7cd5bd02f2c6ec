"""Whole numbers in a file that are no weights of an operator: what is added.

They are `AddedConstant`s of a network, and the factors and offsets of its
LayerNormalizations. Each is a tensor with a name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.model_file import damage_reported, operator_name, owners
from qgen_tf import errors

if TYPE_CHECKING:  # reading a file takes no TensorFlow
    from qgen_tf.quantization.grids import WeightGrid

# levels, and one step size or one for each channel
Constant: TypeAlias = tuple[np.ndarray, np.ndarray]

_DTYPES: dict[int, type[np.signedinteger]] = {
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT64: np.int64,
}


def write_constants(
    model: schema.ModelT,
    grids: Mapping[str, WeightGrid],
    names: Collection[str],
) -> None:
    """Gives the constants that are added their names and their integers.

    Args:
      model: converted from a network; it is changed.
      grids: name of an `AddedConstant` to its grid.
      names: of all layers of the network.

    Raises:
      ExportError: the addition of a layer is missing.
    """
    missing = dict(grids)
    tensors = model.subgraphs[0].tensors
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) != "ADD":
            continue
        path = tensors[operator.outputs[0]].name.decode()
        for name in owners(path, names) & missing.keys():
            (tensor,) = _constants(model, operator)
            grid = missing.pop(name)
            tensor.name = name
            tensor.quantization.scale = np.array([grid.step_size], np.float32)
            tensor.quantization.zeroPoint = np.array([0])
            # a buffer of its own: the converter lets equal ones be shared
            data = np.frombuffer(grid.levels.tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT(data=data))
    if missing:
        raise errors.ExportError(
            "the converter made no integer operator of the layers "
            f"{list(missing)}."
        )


def _constants(
    model: schema.ModelT, operator: schema.OperatorT
) -> Iterator[schema.TensorT]:
    for index in operator.inputs:
        tensor = model.subgraphs[0].tensors[index]
        if model.buffers[tensor.buffer].data is not None:
            yield tensor


@damage_reported()
def read_constants(
    model: schema.ModelT, names: Collection[str]
) -> dict[str, Constant]:
    """Returns the levels, flat, and the step sizes, float32, of constants.

    Args:
      model: a file.
      names: of the constants.

    Raises:
      ExportError: the file lacks one of them, or it is not a tensor of whole
        numbers around 0.
    """
    found = {}
    for tensor in model.subgraphs[0].tensors:
        name = (tensor.name or b"").decode()
        if name in names and tensor.type in _DTYPES:
            data = model.buffers[tensor.buffer].data
            quantization = tensor.quantization
            if data is not None and not np.any(quantization.zeroPoint):
                levels = np.asarray(data, np.uint8).view(_DTYPES[tensor.type])
                found[name] = levels, np.array(quantization.scale, np.float32)
    if missing := sorted(set(names) - found.keys()):
        raise errors.ExportError(
            f"the file holds no constant {missing[0]!r} of whole numbers."
        )
    return found
