"""Results that several measures of one model need, found once."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Hashable, Iterator
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_found: contextvars.ContextVar[dict[Hashable, Any] | None] = (
    contextvars.ContextVar("found", default=None)
)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Lets the measures inside of it share what they find.

        with measures.shared():
            for measure in measures.MEASURES.values():
                measure(model, dataset)

    The deployed network is then built once, and a search that several measures
    start from runs once. Models, data sets and functions are told apart as
    objects: do not change the weights of a model inside.
    """
    if _found.get() is not None:  # inside of another one, which goes on
        yield
        return
    token = _found.set({})
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
    """Returns numbers and strings as they are, and the identity of objects."""
    if isinstance(value, str | int | float | tuple | None):
        return value
    return id(value)
