"""The errors that a user can cause, each one sentence: what, where, what to do.

Command-line programs print a `UserError` without a stack trace and exit with
status 2.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


class UserError(Exception):
    """A mistake that the user can mend; the message says how."""


class ConfigError(UserError):
    """A field or value of a config is wrong."""


class DataError(UserError):
    """A data set is missing, empty or malformed."""


class ModelError(UserError):
    """A model has a structure that cannot be quantized or exported."""


class RunDirectoryError(UserError):
    """A run directory is missing, unfinished or belongs to another config."""


class ExportError(UserError):
    """A network cannot be converted, or the file is not what was asked for."""


class StackError(UserError):
    """TensorFlow, Keras and the like are in versions or an order that fail."""


def _is_number(value: Any, kind: type = numbers.Real) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a setting is a finite number: no text, no bool, not NaN."""
    return _is_number(value) and -math.inf < value < math.inf


def _is_config(value: Any) -> bool:
    import ml_collections  # which takes its time

    return isinstance(value, ml_collections.ConfigDict)


# annotation of an argument -> whether a value is that, and what to write;
# ranges are known to the functions
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "Callable": (callable, "a function"),
    "ml_collections.ConfigDict": (
        _is_config,
        "a config, such as qgen_tf.config.default_config() returns",
    ),
    "str | os.PathLike[str]": (
        lambda value: isinstance(value, str | os.PathLike),
        "a path",
    ),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "float": (_is_number, "a number"),
    "int": (
        lambda value: _is_number(value, numbers.Integral),
        "a whole number",
    ),
    "str": (lambda value: isinstance(value, str), "a text"),
    "tuple[float, float]": (
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(map(_is_number, value))
        ),
        "two numbers",
    ),
}


def typed(function: _Function) -> _Function:
    """Has a function refuse arguments whose types are not the annotated ones.

    It raises a ConfigError for what is no bool, number, text, path, function,
    config or pair of numbers where it should be, and for a negative `seed`.
    Arguments of other types are left to the function.
    """
    kinds = {
        parameter.name: str(parameter.annotation)
        for parameter in inspect.signature(function).parameters.values()
    }
    owner = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*arguments: Any, **settings: Any) -> Any:
        given = dict(zip(kinds, arguments, strict=False)) | settings
        for name, value in given.items():
            _require_kind(owner, name, value, kinds.get(name, ""))
        return function(*arguments, **settings)

    return checked  # type: ignore


def _require_kind(owner: str, name: str, value: Any, annotation: str) -> None:
    if value is None and annotation.endswith(" | None"):
        return
    kind = annotation.removesuffix(" | None")
    if kind.startswith("Callable[") and " | " not in kind:
        kind = "Callable"
    if kind not in _KINDS:
        return
    is_of_kind, words = _KINDS[kind]
    if not is_of_kind(value) or (name == "seed" and value < 0):
        words += ", 0 or more" if name == "seed" else ""
        raise ConfigError(
            f"{owner} has {name}={reprlib.repr(value)}: write {words}."
        )
