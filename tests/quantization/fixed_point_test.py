import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from qgen_tf.quantization.fixed_point import Multiplier, steps_of


def doubling_high_multiplication(a, b):
    """Returns a * b / 2^31, halves up, in integers (gemmlowp)."""
    product = a * b
    nudge = 2**30 if product >= 0 else 1 - 2**30
    nudged = product + nudge
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def divided_by_power_of_two(value, exponent):
    """Returns value / 2^exponent, halves away from zero, in integers."""
    mask = 2**exponent - 1
    threshold = (mask >> 1) + (value < 0)
    return (value >> exponent) + ((value & mask) > threshold)


def requantized(total, scale, count=1):
    """Returns total / count * scale as the reference kernels round it."""
    fraction, exponent = math.frexp(scale)
    multiplier = round(fraction * 2**31)
    digits = count.bit_length() - 1
    multiplier, exponent = (multiplier << digits) // count, exponent - digits
    left, right = max(exponent, 0), max(-exponent, 0)
    return divided_by_power_of_two(
        doubling_high_multiplication(total << left, multiplier), right
    )


@settings(deadline=None)
@given(
    total=st.integers(-(2**28), 2**28),
    factor=st.floats(1e-6, 7.9),
    count=st.sampled_from([1, 3, 4, 9, 64, 196]),
)
def test_rounds_as_integers_do(total, factor, count):
    multiplier = Multiplier.of(factor).divided(count)
    found = multiplier(tf.constant([total], tf.int64)).numpy()
    assert found == [requantized(total, factor, count)]


@pytest.mark.parametrize(
    ("factor", "number", "exponent"),
    [(0.5, 2**30, 0), (1.0, 2**30, 1), (0.75, 3 * 2**29, 0)]
    # the next number below 1 has more than 31 bits: it becomes 1
    + [(1.0 - 2.0**-40, 2**30, 1)],
)
def test_a_factor_is_a_number_and_a_power(factor, number, exponent):
    multiplier = Multiplier.of(factor)
    assert (multiplier.number, multiplier.exponent) == (number, exponent)


def test_each_channel_has_its_factor():
    multiplier = Multiplier.of(np.array([0.5, 2.0, 0.3]))
    values = tf.constant([[3, 3, 8], [-3, -3, -8]], tf.int64)
    # 1.5 is rounded up; 0.3 is 0.6 / 2, so 4.8 and 5 / 2
    np.testing.assert_array_equal(multiplier(values), [[2, 6, 3], [-1, -6, -3]])


def test_steps_forgive_float_errors():
    values = np.float32(0.1) * np.arange(-5, 6, dtype=np.float32)
    steps = steps_of(values * np.float32(1.0 + 1e-6), 0.1)
    np.testing.assert_array_equal(steps, np.arange(-5, 6))


def test_ruy_takes_halves_up():
    values = tf.constant([1, 3, -1, -3], tf.int64)
    multiplier = Multiplier.of(0.5)
    np.testing.assert_array_equal(multiplier.upward(values), [1, 2, 0, -1])
    values = tf.constant([10, -10], tf.int64)  # 2.5 after 2^-2
    multiplier = Multiplier.of(0.25)
    np.testing.assert_array_equal(multiplier(values), [3, -3])
    np.testing.assert_array_equal(multiplier.upward(values), [3, -2])


def test_a_wide_sum_knows_15_bits_of_a_factor():
    values = tf.constant([2**40, -(2**40)], tf.int64)
    factor = 0.5 + 2.0**-15 + 2.0**-20
    found = Multiplier.of(factor).wide(values)
    wanted = 2**40 * np.array([0.5 + 2.0**-15, -0.5 - 2.0**-15])
    np.testing.assert_array_equal(found, wanted)
    # the largest 15 bits, not 2^15
    found = Multiplier.of(1.0 - 2.0**-31).wide(values)
    np.testing.assert_array_equal(found, [2**40 - 2**25, 2**25 - 2**40])
