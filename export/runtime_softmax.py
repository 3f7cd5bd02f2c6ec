"""Softmax of an int8 tensor in the arithmetic of the runtime's kernels.

XNNPACK has none. The runtime's optimized kernel reads exponentials from a
table and sums them in float32, the plain one computes in fixed point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.fixed_point import (
    Multiplier,
    divided_by_power,
    high_product,
    steps_of,
)

_OUTPUT_STEP = np.float32(1 / 256)

# integer bits of exponents and of sums in fixed point; all have 32 bits
_EXPONENT_BITS = 5
_SUM_BITS = 12
# 2^31 times exp(-2^k), k from -2
_POWERS = (
    1672461947,
    1302514674,
    790015084,
    290630308,
    39332535,
    720401,
    242,
)


class RuntimeSoftmax(keras.layers.Layer):
    """Softmax along the last axis, rounded to steps of 1/256."""

    def __init__(self, input_step: float, **kwargs: Any):
        """Takes the step size of the inputs."""
        super().__init__(**kwargs)
        self._input_step = input_step

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities; none is cut at 255/256."""
        steps = steps_of(inputs, self._input_step)
        differences = tf.reduce_max(steps, -1, keepdims=True) - steps
        levels = self._levels(differences)
        return tf.cast(levels, inputs.dtype) * _OUTPUT_STEP

    def _levels(self, differences: tf.Tensor) -> tf.Tensor:
        """Returns probabilities, given how far below the highest steps are."""
        exponents = np.arange(256, dtype=np.float32) * -np.float32(
            self._input_step
        )
        # in float64, since NumPy's float32 is not rounded to the nearest
        table = np.exp(exponents.astype(np.float64)).astype(np.float32)
        values = tf.gather(table, differences)
        # one after the other, as the kernel sums them
        total = tf.cumsum(values, -1)[..., -1:]
        # by way of float64, which rounds to the same: a compiled function makes
        # a quotient of a product with a reciprocal in float32
        scale = 1.0 / tf.cast(total * _OUTPUT_STEP, tf.float64)
        return tf.floor(values * tf.cast(scale, tf.float32) + 0.5)


class FixedPointSoftmax(RuntimeSoftmax):
    """The same for the plain kernel (gemmlowp)."""

    def _levels(self, differences: tf.Tensor) -> tf.Tensor:
        step = float(np.float32(self._input_step))
        multiplier = Multiplier.of(step * 2.0 ** (31 - _EXPONENT_BITS))
        lowest = (2**_EXPONENT_BITS - 1) << (31 - _EXPONENT_BITS)
        reach = tf.bitwise.right_shift(np.int64(lowest), multiplier.exponent)
        table = _exponential(multiplier(tf.range(-255, 1, dtype=tf.int64)))
        values = tf.gather(table, 255 - differences)
        values = tf.where(differences <= reach, values, 0)
        total = divided_by_power(values, _SUM_BITS)
        total = tf.reduce_sum(total, -1, keepdims=True)
        powers = 2 ** np.arange(32, dtype=np.int64)
        digits = tf.cast(total >= powers, tf.int64)
        digits = tf.reduce_sum(digits, -1, keepdims=True)
        products = high_product(_reciprocal(total * 2 ** (32 - digits)), values)
        # digits of the sum before the point, and 8 of 31 behind it to stay
        return divided_by_power(products, _SUM_BITS - 32 + digits + 31 - 8)


def _exponential(values: tf.Tensor) -> tf.Tensor:
    """Returns 2^31 exp(x) for x <= 0, given 2^26 x."""
    quarter = np.int64(2 ** (29 - _EXPONENT_BITS))
    rest = tf.bitwise.bitwise_and(values, quarter - 1) - quarter
    # the series around -1/8
    x = rest * 2**_EXPONENT_BITS + 2**28
    square = high_product(x, x)
    cube, fourth = high_product(square, x), high_product(square, square)
    series = high_product(divided_by_power(fourth, 2) + cube, 715827883)
    series = x + divided_by_power(series + square, 1)
    start = np.int64(1895147668)  # 2^31 exp(-1/8)
    result = start + high_product(start, series)
    for index, power in enumerate(_POWERS):
        bit = quarter << index
        has_bit = tf.bitwise.bitwise_and(rest - values, bit) != 0
        result = tf.where(has_bit, high_product(result, power), result)
    return tf.where(values == 0, np.int64(2**31 - 1), result)


def _reciprocal(values: tf.Tensor) -> tf.Tensor:
    """Returns 2^31 / x, given 2^31 x from 2^31 to 2^32 - 1."""
    half = tf.bitwise.right_shift(values, np.int64(1))
    # Newton's method for 1 / (x / 2), in steps of 2^-29, from 48/17 - 16/17 x
    result = 1515870810 + high_product(half, -1010580540)
    for _ in range(3):
        error = 2**29 - high_product(half, result)
        result += 4 * high_product(result, error)
    return 2 * result
