"""Draws of keras-cv layers are functions of a seed and leave no trace."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from qgen_tf.data import stateless

_FUNCTIONS = ("uniform", "normal", "gamma", "shuffle")


def _all_draws(seed):
    with stateless.draws(tf.constant(seed)):
        generator = tf.random.Generator.from_seed(0)
        return [
            tf.random.uniform([8]).numpy(),
            tf.random.uniform([8], 0, 1000, tf.int32).numpy(),
            tf.random.normal([8], 1.0, 2.0).numpy(),
            tf.random.gamma([8], 0.5).numpy(),
            tf.random.shuffle(tf.range(64)).numpy(),
            generator.uniform([8]).numpy(),
        ]


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2))
def test_draws_are_a_function_of_the_seed(seed):
    tf.random.set_seed(1)
    first = _all_draws(seed)
    tf.random.set_seed(2)
    for one, other in zip(first, _all_draws(seed), strict=True):
        np.testing.assert_array_equal(one, other)
    changed = _all_draws((seed[0], seed[1] ^ 1))
    for one, other in zip(first, changed, strict=True):
        assert not np.array_equal(one, other)


def test_draws_of_one_block_differ():
    with stateless.draws(tf.constant([0, 0])):
        first, second = tf.random.uniform([8]), tf.random.uniform([8])
    assert not np.array_equal(first, second)


def test_draws_have_the_asked_distribution():
    with stateless.draws(tf.constant([3, 4])):
        uniform = tf.random.uniform([20000], 2.0, 4.0).numpy()
        normal = tf.random.normal([20000], 1.0, 2.0).numpy()
        gamma = tf.random.gamma([20000], 0.1).numpy()
    assert 2.0 <= uniform.min() and uniform.max() < 4.0
    assert uniform.mean() == pytest.approx(3.0, abs=0.02)
    assert normal.mean() == pytest.approx(1.0, abs=0.06)
    assert normal.std() == pytest.approx(2.0, abs=0.06)
    assert gamma.mean() == pytest.approx(0.1, abs=0.02)
    assert gamma.min() > 0  # a quotient of two is never 0 / 0


def test_tensorflow_is_as_it_was_after_an_error():
    before = [getattr(tf.random, name) for name in _FUNCTIONS]
    generator_uniform = tf.random.Generator.uniform
    with pytest.raises(KeyError), stateless.draws(tf.constant([0, 0])):
        raise KeyError
    assert [getattr(tf.random, name) for name in _FUNCTIONS] == before
    assert tf.random.Generator.uniform is generator_uniform


def test_layers_leave_the_global_generator_alone():
    before = tf.random.get_global_generator()
    with stateless.layers():
        assert tf.random.get_global_generator() is not before
    assert tf.random.get_global_generator() is before
