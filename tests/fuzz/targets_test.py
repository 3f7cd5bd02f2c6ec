"""What users and machines hand in; `python -m tests.fuzz` tries more.

That of .tflite files is in tests/fuzz/files_test.py.
"""

import numpy as np
import pytest

from tests.fuzz import damage, targets


def _tried(target, seed, count):
    """Returns the steps that refused inputs, and how many were refused."""
    steps, refused = set(), 0
    with targets.opened(target) as attempt:
        for number in range(count):
            how, refusals = attempt(seed, number)
            for step, message in refusals.items():
                # what Keras says of a layer may have several lines
                one_sentence = message.endswith(".") and "\n" not in message
                assert one_sentence or step == "model", how
            steps.update(refusals)
            refused += bool(refusals)
    return steps, refused


@pytest.mark.parametrize(
    ("target", "count", "expected"),
    [
        ("config", 60, {"fields", "design"}),
        ("run", 25, {"records", "shown", "model"}),
        ("records", 60, {"load"}),
    ],
)
def test_damage_is_noticed(target, count, expected):
    steps, refused = _tried(target, seed=0, count=count)
    assert expected <= steps
    assert refused < count  # some do no harm


@pytest.mark.full
@pytest.mark.parametrize("target", ["config", "run", "records"])
def test_more_damage_is_noticed(target):
    _tried(target, seed=1, count=500)


@pytest.mark.parametrize("target", ["config", "run", "records"])
def test_damage_is_repeatable(target):
    made = [targets.describe(target, 3, number) for number in range(9)]
    again = [targets.describe(target, 3, number) for number in range(9)]
    assert made == again and len(set(made)) > 3


def test_what_takes_too_long_is_a_mistake(monkeypatch):
    monkeypatch.setattr(targets, "SECONDS", 1)
    with pytest.raises(TimeoutError), targets._limited():
        while True:
            pass


def test_a_tree_has_one_thing_changed():
    content = {"a": [1, {"b": "text"}], "c": None}
    for seed in range(200):
        changed = damage.tree(np.random.default_rng(seed), content)
        assert content == {"a": [1, {"b": "text"}], "c": None}
        assert isinstance(changed, dict)
