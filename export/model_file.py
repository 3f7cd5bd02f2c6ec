"""The object tree of a TensorFlow Lite file: reading, writing, names."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export import validator
from qgen_tf import errors

_ALIGNMENT = 16
_FLOATS = {
    schema.TensorType.BFLOAT16,
    schema.TensorType.FLOAT16,
    schema.TensorType.FLOAT32,
    schema.TensorType.FLOAT64,
}
_OPERATORS = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if not name.startswith("_")
}


def parse(content: bytes) -> schema.ModelT:
    """Returns the object tree of a TensorFlow Lite file.

    It is what `validator.require_well_formed` says, so that tensors, buffers
    and operator codes can be looked up by the numbers in it.

    Raises:
      ExportError: the content is not such a file, is damaged, or holds several
        graphs.
    """
    require_content(content)
    if content[4:8] != b"TFL3":
        raise errors.ExportError(
            "this is not a TensorFlow Lite file: it lacks the TFL3 mark."
        )
    with damage_reported():
        validator.require_modest(content)
        model = schema.ModelT.InitFromPackedBuf(validator.Content(content), 0)
        validator.require_well_formed(model)
    return model


def require_content(content: bytes) -> None:
    """Raises an ExportError unless the content of a file is bytes."""
    if not isinstance(content, bytes):
        raise errors.ExportError(
            "the content of a TensorFlow Lite file must be bytes, not "
            f"{type(content).__name__}: pass pathlib.Path(path).read_bytes(), "
            "or what export.convert returns."
        )


@contextlib.contextmanager
def damage_reported() -> Iterator[None]:
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


class _AlignedBuilder(schema.flatbuffers.Builder):
    """Starts each array at a multiple of 16 bytes, as the runtime wants it."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        self.Prep(_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


def pack(model: schema.ModelT) -> bytes:
    """Returns the file of an object tree."""
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """Returns the name of an operator's kind, such as CONV_2D."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def computes_in_float(model: schema.ModelT, operator: schema.OperatorT) -> bool:
    """Whether an operator reads or writes floats."""
    tensors = model.subgraphs[0].tensors
    return any(
        tensors[index].type in _FLOATS
        for index in [*operator.inputs, *operator.outputs]
        if index >= 0
    )


def owners(path: str, names: Collection[str]) -> set[str]:
    """Returns the layers that a tensor of the file comes from.

    Args:
      path: names of operations, as `model/layer/operation`, separated by
        semicolons.
      names: of all layers, which may hold slashes themselves.
    """
    owners = set()
    for part in path.split(";"):
        _, _, inner = part.partition("/")
        matches = [name for name in names if inner.startswith(f"{name}/")]
        owners.update(sorted(matches, key=len)[-1:])
    return owners
