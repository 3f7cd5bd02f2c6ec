"""Random damage to values, to nested values and to bytes.

Whoever calls seeds the generator: the same one gives the same damage.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 7, 0.5, -0.5, 2.0, 1e-3),
    *(float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, -0.0),
    *(10**6, 2**31, -(2**31), 2**63, -(2**63), 10**30, 10**400),
    *("", " ", "a", "1", "nan", "True", "all", "../../x", "/etc/passwd"),
    *("a/b", "..", "nul\0", "two\nlines", "é✓🙂", "\u202e", "x" * 5000),
    *("<script>alert(1)</script>", "'; --", "%s {0}", "\ud800"),
    *([], {}, [[]], [1, "a", None], [0.5] * 9, {"a": {"b": 1}}, {"": []}),
)


def pick(generator: np.random.Generator, things: Any) -> Any:
    """Returns one of several things, which numpy would make an array of."""
    return things[int(generator.integers(len(things)))]


def nested(depth: int) -> list:
    """Returns a list in a list, and so on."""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def wrong_value(generator: np.random.Generator, value: Any) -> Any:
    """Returns another value: one of `WRONG`, or one that is like it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and generator.random() < 0.4:
        factor = pick(generator, (-1, 0, 2, 3, 10, 0.5, 1e6))
        changed = value * factor
        return type(value)(changed)
    if isinstance(value, str) and value and generator.random() < 0.3:
        place = int(generator.integers(len(value)))
        return value[:place] + pick(generator, "aZ0._/\\ é\n") + value[place:]
    return copy.deepcopy(pick(generator, WRONG))


def tree(generator: np.random.Generator, content: Any) -> Any:
    """Returns nested dicts and lists with one thing in them changed."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return wrong_value(generator, content)
    parent, key = pick(generator, places)
    kind = int(generator.integers(8))
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        name = pick(generator, ("extra", "", "é", "a b", "1", "x" * 300))
        parent[name] = wrong_value(generator, 0)
    elif kind == 2:  # a value from elsewhere
        other, place = pick(generator, places)
        parent[key] = copy.deepcopy(other[place])
    elif kind == 3:
        parent[key] = pick(generator, ([parent[key]], {"a": parent[key]}))
    elif kind == 4 and isinstance(parent, list):
        parent.extend([parent[key]] * int(generator.integers(1, 4)))
    else:
        parent[key] = wrong_value(generator, parent[key])
    return content


def _places(content: Any):
    """Yields (dict or list, key) of every value, at all depths."""
    if isinstance(content, dict):
        keys = list(content)
    elif isinstance(content, list):
        keys = list(range(len(content)))
    else:
        return
    for key in keys:
        yield content, key
        yield from _places(content[key])


def truncate(generator: np.random.Generator, content: bytes) -> bytes:
    """Returns the first bytes."""
    return content[: generator.integers(len(content))]


def flip_bits(generator: np.random.Generator, content: bytes) -> bytes:
    """Returns as many bytes, with up to eight bits changed."""
    data = bytearray(content)
    for _ in range(generator.integers(1, 9)):
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    return bytes(data)


def splice(generator: np.random.Generator, content: bytes) -> bytes:
    """Returns other bytes in the place of some: of it, or at random."""
    start, source = (int(generator.integers(len(content))) for _ in "ab")
    length = int(generator.integers(1, 100))
    put = content[source : source + length]
    if generator.random() < 0.5:
        put = generator.bytes(length)
    end = start + int(generator.integers(length + 1))
    return content[:start] + put + content[end:]


BYTES = (truncate, flip_bits, splice)
