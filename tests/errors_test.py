"""Arguments of the wrong type are refused in one sentence."""

from __future__ import annotations

import inspect
import os
import pathlib
from collections.abc import Callable, Sequence

import ml_collections
import numpy as np
import pytest

from qgen_tf import errors


@errors.typed
def _settings(
    count: int = 1,
    share: float | None = 0.5,
    *,
    is_on: bool = True,
    name: str = "one",
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
    path: str | os.PathLike[str] = ".",
    progress: Callable[[Sequence[int]], int] = len,
    config: ml_collections.ConfigDict | None = None,
    names: Sequence[str] = (),
    rate: Callable[[int], float] | float = 0.1,
):
    """Returns what it is given."""
    return {**locals()}


class _Owner:
    @errors.typed
    def __init__(self, size: int):
        self.size = size


_NO_NUMBERS = ["a", [], {}, object(), True]


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("count", [*_NO_NUMBERS, None, 1.5], "a whole number"),
        ("share", [*_NO_NUMBERS], "a number"),
        ("is_on", [None, "no", 1], "True or False"),
        ("name", [None, b"one", ["one"]], "a text"),
        ("seed", [*_NO_NUMBERS, None, 0.0, -1], "a whole number, 0 or more"),
        ("bounds", [None, "ab", [], (1,), (1, "b"), (0, 1, 2)], "two numbers"),
        ("path", [None, 3, b"runs"], "a path"),
        ("progress", [None, "tqdm"], "a function"),
        ("config", [{}, "digits.py"], "a config, such as qgen_tf.config."),
    ],
)
def test_a_wrong_type_is_told(name, wrong, words):
    for value in wrong:
        with pytest.raises(
            errors.ConfigError,
            match=rf"^_settings has {name}=.*: write {words}",
        ) as told:
            _settings(**{name: value})
        assert "\n" not in str(told.value)


def test_places_and_names_are_the_same():
    with pytest.raises(errors.ConfigError, match="has share='a': write a numb"):
        _settings(1, "a")
    with pytest.raises(errors.ConfigError, match="_Owner has size=None: write"):
        _Owner(None)
    assert _Owner(3).size == 3


def test_what_is_of_the_type_passes():
    given = {
        "count": np.int64(2),
        "share": None,
        "is_on": False,
        "name": "",
        "seed": np.uint8(3),
        "bounds": [np.float32(1), 2],
        "path": pathlib.Path("runs"),
        "progress": sum,
        "config": ml_collections.ConfigDict(),
        "names": None,  # this and the next are left to the function
        "rate": "high",
    }
    assert _settings(**given) == given


def test_the_function_stays_what_it_is():
    assert _settings.__doc__ == "Returns what it is given."
    assert [*inspect.signature(_settings).parameters][:2] == ["count", "share"]
    with pytest.raises(TypeError, match="unexpected keyword"):
        _settings(missing=1)
