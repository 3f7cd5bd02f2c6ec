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


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """Positive factors, `number * 2**(exponent - 31)`.

    Attributes:
      number: int64, 2^30 to 2^31 - 1, but less after `divided`; one, or one
        for each channel.
      exponent: int64, of the same shape.
    """

    number: np.ndarray
    exponent: np.ndarray

    @classmethod
    def of(cls, factor: float | np.floating[Any] | np.ndarray) -> Multiplier:
        """Returns the nearest ones to given factors."""
        fraction, exponent = np.frexp(np.asarray(factor, np.float64))
        number = np.floor(fraction * 2.0**_BITS + 0.5).astype(np.int64)
        is_one = number == 2**_BITS
        return cls(
            np.where(is_one, 2 ** (_BITS - 1), number),
            exponent.astype(np.int64) + is_one,
        )

    def divided(self, count: int) -> Multiplier:
        """Returns the factors of a mean, at a power of two that keeps digits.

        Args:
          count: of the values that the mean is of.
        """
        digits = np.minimum(count.bit_length() - 1, _BITS + self.exponent)
        number = (self.number << digits) // count
        return Multiplier(number, self.exponent - digits)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the products; the last axis is that of the channels."""
        shifted = values * (np.int64(1) << np.maximum(self.exponent, 0))
        products = high_product(shifted, self.number)
        return divided_by_power(products, np.maximum(-self.exponent, 0))

    def upward(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the products as ruy rounds them: halves up, twice."""
        shifted = values * (np.int64(1) << np.maximum(self.exponent, 0))
        products = high_product(shifted, self.number)
        right = np.maximum(-self.exponent, 0)
        half = (np.int64(1) << right) >> 1
        return tf.bitwise.right_shift(products + half, right)

    def wide(self, values: tf.Tensor) -> tf.Tensor:
        """Returns products of sums of 64 bits, which know 15 bits of a factor.

        They are rounded once, halves up.
        """
        number = np.minimum((self.number + 2**15) >> 16, 2**15 - 1)
        shift = 15 - self.exponent
        half = np.int64(1) << (shift - 1)
        return tf.bitwise.right_shift(values * number + half, shift)


def high_product(a: Any, b: Any) -> tf.Tensor:
    """Returns a b / 2^31, halves up."""
    half = np.int64(2 ** (_BITS - 1))
    return tf.bitwise.right_shift(a * b + half, np.int64(_BITS))


def divided_by_power(values: tf.Tensor, exponent: Any) -> tf.Tensor:
    """Returns values / 2^exponent, halves away from zero."""
    exponent = tf.cast(exponent, tf.int64)
    half = tf.bitwise.right_shift(2**exponent, np.int64(1))
    half -= tf.cast((values < 0) & (exponent > 0), tf.int64)
    return tf.bitwise.right_shift(values + half, exponent)


def steps_of(values: tf.Tensor, step_size: float) -> tf.Tensor:
    """Returns the steps of values that are on a grid, int64."""
    steps = tf.cast(values, tf.float64) / float(step_size)
    return tf.cast(tf.round(steps), tf.int64)
