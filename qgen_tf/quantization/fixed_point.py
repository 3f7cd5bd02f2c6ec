"""The fixed-point arithmetic of the runtime's own kernels (gemmlowp).

A real factor is a number of 31 bits and a power of two. A product is rounded
twice, once after each of them: Jacob et al. 2018 (arXiv 1712.05877), section
2.2. Tensors are int64 here and hold whole numbers of 32 bits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

_BITS = 31
# of float64
_MANTISSA_BITS = 52
_EXPONENT_BIAS = 1022  # for a fraction from 1/2 to 1


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """Positive factors, `number * 2**(exponent - 31)`.

    Attributes:
      number: int64, 2^30 to 2^31 - 1, but less after `divided`; one, or one
        for each channel.
      exponent: int64, of the same shape.
    """

    number: tf.Tensor
    exponent: tf.Tensor

    @classmethod
    def of(cls, factor: Any) -> Multiplier:
        """Returns the nearest ones to given factors, positive floats."""
        bits = tf.bitcast(float64(factor), tf.int64)
        one = 2**_MANTISSA_BITS
        mantissa = tf.bitwise.bitwise_and(bits, one - 1) + one
        number = _shifted_right(mantissa, _MANTISSA_BITS + 1 - _BITS)
        is_one = number == 2**_BITS
        exponent = _right_shift(bits, _MANTISSA_BITS) - _EXPONENT_BIAS
        return cls(
            tf.where(is_one, tf.constant(2 ** (_BITS - 1), tf.int64), number),
            exponent + tf.cast(is_one, tf.int64),
        )

    def divided(self, count: int) -> Multiplier:
        """Returns the factors of a mean, at a power of two that keeps digits.

        Args:
          count: of the values that the mean is of.
        """
        most = tf.constant(count.bit_length() - 1, tf.int64)
        digits = tf.minimum(most, _BITS + self.exponent)
        number = tf.bitwise.left_shift(self.number, digits) // count
        return Multiplier(number, self.exponent - digits)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the products; the last axis is that of the channels."""
        return divided_by_power(self._high_product(values), self._right)

    def upward(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the products as ruy rounds them: halves up, twice."""
        return _shifted_right(self._high_product(values), self._right)

    def wide(self, values: tf.Tensor) -> tf.Tensor:
        """Returns products of sums of 64 bits, which know 15 bits of a factor.

        They are rounded once, halves up.
        """
        number = _shifted_right(self.number, 16)
        number = tf.minimum(number, tf.constant(2**15 - 1, tf.int64))
        return _shifted_right(values * number, 15 - self.exponent)

    @property
    def _right(self) -> tf.Tensor:
        """Bits that are left to be shifted out, if any are."""
        return tf.nn.relu(-self.exponent)

    def _high_product(self, values: tf.Tensor) -> tf.Tensor:
        left = tf.nn.relu(self.exponent)
        shifted = values * tf.bitwise.left_shift(tf.ones_like(left), left)
        return high_product(shifted, self.number)


def _right_shift(values: tf.Tensor, bits: Any) -> tf.Tensor:
    return tf.bitwise.right_shift(values, tf.cast(bits, tf.int64))


def _shifted_right(values: tf.Tensor, bits: Any) -> tf.Tensor:
    """Returns values / 2^bits, halves up."""
    bits = tf.cast(bits, tf.int64)
    half = _right_shift(tf.bitwise.left_shift(tf.ones_like(bits), bits), 1)
    return _right_shift(values + half, bits)


def float64(value: Any) -> tf.Tensor:
    """Returns a tensor or number in float64, no digit lost."""
    if tf.is_tensor(value):
        return tf.cast(value, tf.float64)
    return tf.constant(np.asarray(value, np.float64))


def high_product(a: Any, b: Any) -> tf.Tensor:
    """Returns a b / 2^31, halves up."""
    return _shifted_right(a * b, _BITS)


def divided_by_power(values: tf.Tensor, exponent: Any) -> tf.Tensor:
    """Returns values / 2^exponent, halves away from zero."""
    exponent = tf.cast(exponent, tf.int64)
    half = tf.bitwise.left_shift(tf.ones_like(exponent), exponent)
    half = _right_shift(half, 1)
    half -= tf.cast((values < 0) & (exponent > 0), tf.int64)
    return _right_shift(values + half, exponent)


def steps_of(values: tf.Tensor, step_size: Any) -> tf.Tensor:
    """Returns the steps of values that are on a grid, int64."""
    steps = tf.cast(values, tf.float64) / float64(step_size)
    return tf.cast(tf.round(steps), tf.int64)
