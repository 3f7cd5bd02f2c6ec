"""What several parts of one task need, found once."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import inspect
import os
from collections.abc import Callable, Hashable, Iterator
from typing import Any, ParamSpec, TypeVar

import ml_collections

_P = ParamSpec("_P")
_T = TypeVar("_T")

_found: contextvars.ContextVar[collections.ChainMap[Hashable, Any] | None] = (
    contextvars.ContextVar("found", default=None)
)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Lets what is done inside of it share what it finds.

        with measures.shared():
            for measure in measures.MEASURES.values():
                measure(model, dataset)

    The deployed network is then built once, and a search that several measures
    start from runs once; data sets and models of run directories are loaded
    once. All of it stays in memory until the end. One inside of another knows
    what that has found, too.

    Models, data sets and functions are told apart as objects: do not change
    the weights of a model inside. Files that change inside are not read again.
    """
    outer = _found.get()
    inner = collections.ChainMap() if outer is None else outer.new_child()
    token = _found.set(inner)
    try:
        yield
    finally:
        _found.reset(token)


def remembered(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Makes a function remember its results inside of `shared`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        found = _found.get()
        if found is None:
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        key = (function, *map(_key, bound.arguments.values()))
        if key not in found:
            # with the arguments: what is alive keeps its identity
            found[key] = (function(*args, **kwargs), bound)
        return found[key][0]

    return call


def _key(value: Any) -> Hashable:
    """Returns what an argument says, or else its identity."""
    if isinstance(value, str | int | float | tuple | None):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, ml_collections.ConfigDict):
        return value.to_json(sort_keys=True)
    return id(value)
