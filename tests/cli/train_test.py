"""The flags that say how qgen-train and qgen-measure compute."""

import types

import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.cli import execution


def _flag(value):
    return types.SimpleNamespace(value=value)


@pytest.fixture
def chosen(monkeypatch):
    """Returns whether repeatable operations were asked for, call by call."""
    calls = []
    monkeypatch.setattr(
        tf.config.experimental,
        "enable_op_determinism",
        lambda: calls.append(True),
    )
    return calls


@pytest.mark.parametrize("deterministic", [True, False])
def test_operations_are_repeatable_unless_speed_is_asked_for(
    chosen, deterministic
):
    draws = []
    for _ in range(2):
        with execution.scope(_flag("one_device"), _flag(deterministic), seed=3):
            draws.append(float(tf.random.uniform([])))
    assert draws[0] == draws[1]  # seeded, whatever the operations
    assert chosen == [True] * (2 * deterministic)


def test_the_scope_is_that_of_the_strategy(chosen):
    with execution.scope(_flag("mirrored"), _flag(True), seed=0):
        assert isinstance(
            tf.distribute.get_strategy(), tf.distribute.MirroredStrategy
        )
    assert not tf.distribute.has_strategy()


def test_a_worker_that_is_left_alone_says_so(chosen):
    with (
        pytest.raises(errors.UserError, match="another worker has ended"),
        execution.scope(_flag("one_device"), _flag(True), seed=0),
    ):
        raise tf.errors.UnavailableError(None, None, "connection reset by peer")


def test_an_unknown_strategy_is_refused_first(chosen):
    with (
        pytest.raises(errors.ConfigError, match="choose one of"),
        execution.scope(_flag("both"), _flag(True), seed=0),
    ):
        pass
    assert not chosen
