"""JSON files that somebody may have damaged since they were written."""

from __future__ import annotations

import contextlib
import json
import pathlib
import reprlib
import typing
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from qgen_tf import errors

# what looking up fields raises that are not there, or of another type
_STRANGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_FLOAT = (float, int)

_T = TypeVar("_T")


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a file; NaN is no number.

    Raises:
      RunDirectoryError: the file is missing or damaged.
    """
    if not path.is_file():
        raise errors.RunDirectoryError(
            f"{path} is missing, or no file: run the stage that writes it."
        )
    try:
        content = json.loads(path.read_text(), parse_constant=_refuse)
        if not isinstance(content, dict):
            raise ValueError(f"it holds {type(content).__name__}")
        # half of a pair of surrogates is no text that could be written
        json.dumps(content, ensure_ascii=False).encode()
    except (OSError, RecursionError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    return content


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Gives what `read` returns to what takes it apart.

    Raises:
      RunDirectoryError: the file is missing or damaged, or what is looked up
        in it is missing or of another type.
    """
    content = read(path)
    try:
        yield content
    except errors.ConfigError as error:
        raise _damaged(path, str(error)) from error
    except _STRANGE as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def result(kind: type[_T], content: Any) -> _T:
    """Returns a dataclass of numbers and text from its JSON types.

    Raises:
      ValueError: a field is missing, unknown or of another type.
    """
    types = typing.get_type_hints(kind)
    if not isinstance(content, dict) or {*content} != {*types}:
        raise ValueError(f"these are no fields of {kind.__name__}")
    for name, wanted in types.items():
        if not isinstance(content[name], _FLOAT if wanted is float else wanted):
            raise ValueError(f"{name} is {reprlib.repr(content[name])}")
    return kind(**content)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _damaged(path: pathlib.Path, reason: str) -> errors.RunDirectoryError:
    reason = " ".join(reason.split()).rstrip(".")
    return errors.RunDirectoryError(
        f"{path} is damaged ({reason}): delete it and run the stage that "
        "writes it."
    )
