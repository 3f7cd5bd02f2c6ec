"""LayerNormalization in the arithmetic of the runtime's 16-bit operators.

XNNPACK has none of them. The runtime's own kernels, plain and optimized, agree
but for matrix multiplications by a constant.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from export.fixed_point import Multiplier, steps_of
from qgen_tf.compat import keras
from qgen_tf.quantization.layer_norm import NormGrid

_MIN, _MAX = -(2**15), 2**15 - 1
# the runtime tabulates a function at every 2^7th level
_TABLE_BITS = 7


class RuntimeNorm(keras.layers.Layer):
    """What a file computes for a LayerNormalization, but its last operator.

    The outputs are in 16 bits; the grid behind takes them to 8.
    """

    def __init__(self, grid: NormGrid, *, is_plain: bool, **kwargs: Any):
        """Takes the integers of the layer.

        Args:
          grid: of the layer.
          is_plain: whether the reference kernels compute.
          **kwargs: of a layer.
        """
        super().__init__(**kwargs)
        self._dense = _dense_plain if is_plain else _dense
        self._grid = grid
        self._tables = [
            inverse_root_table(step, grid.inverse_step_size)
            for step in grid.power_step_sizes
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized inputs; see `export.norms`."""
        grid = self._grid
        fine, last = grid.centered_step_size, grid.output_16_step_size
        input_step, inverse_step = grid.input_step_size, grid.inverse_step_size
        x = steps_of(inputs, input_step)
        total = tf.reduce_sum(x, -1, keepdims=True)
        mean = self._dense(total, input_step, 1.0 / grid.channels, fine)
        x = _saturated(x * round(input_step / fine) - mean)
        inverse = self._inverse_root(x)
        scale = self._dense(
            inverse * grid.factor_levels.astype(np.int64),
            inverse_step,
            grid.factor_step_sizes,
            grid.product_step_size,
        )
        x = _product(x, scale, fine, grid.product_step_size, last)
        # with a bias all kernels round as the plain one
        beta = _dense_plain(
            tf.constant(grid.beta_levels),
            inverse_step,
            last / inverse_step,
            last,
        )
        return tf.cast(_saturated(x + beta), inputs.dtype) * last

    def _inverse_root(self, x: tf.Tensor) -> tf.Tensor:
        grid = self._grid
        fine = grid.centered_step_size
        total = tf.reduce_sum(x * x, -1, keepdims=True)
        inverses = []
        for table, step, epsilon in zip(
            self._tables,
            grid.power_step_sizes,
            grid.epsilon_levels,
            strict=True,
        ):
            ratio = _ratio(fine, fine, step)
            power = _saturated(Multiplier.of(ratio).wide(total))
            power = _saturated(power + epsilon)
            inverses.append(looked_up(table, power))
        return functools.reduce(tf.minimum, inverses)


def _saturated(levels: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(levels, np.int64(_MIN), np.int64(_MAX))


def _ratio(step: float, weight_steps: Any, output_step: float) -> Any:
    ratio = np.float32(weight_steps).astype(np.float64) * np.float32(step)
    if np.size(weight_steps) == 1:  # the kernels multiply them in float32
        ratio = np.float64(np.float32(ratio))
    return ratio / np.float32(output_step)


def _dense(sums: tf.Tensor, *steps: Any) -> tf.Tensor:
    return _saturated(Multiplier.of(_ratio(*steps)).upward(sums))


def _dense_plain(sums: tf.Tensor, *steps: Any) -> tf.Tensor:
    products = tf.round(tf.cast(sums, tf.float64) * _ratio(*steps))
    return _saturated(tf.cast(products, tf.int64))


def _product(
    a: tf.Tensor, b: tf.Tensor, a_step: float, b_step: float, output_step: float
) -> tf.Tensor:
    # the kernel has the ratio in float32, as opposed to others
    ratio = np.float32(a_step) * np.float32(b_step) / np.float32(output_step)
    return _saturated(Multiplier.of(ratio)(a * b))


def inverse_root_table(step: float, output_step: float) -> np.ndarray:
    """Returns 1 / sqrt at every 2^7th level, as the operator RSQRT has it.

    Each value is moved so that the middle of the straight line to the next is
    off by half of what it was.

    Args:
      step: of the arguments.
      output_step: of the values.

    Returns:
      int64 [513], from the lowest level to the highest.
    """
    one, two = np.float32(1.0), np.float32(2.0)
    unit = np.float32(output_step)
    low, high = (np.float32(step) * np.float32(end) for end in (_MIN, _MAX))
    size = 2 ** (16 - _TABLE_BITS)
    distance = (high - low) / np.float32(size)
    levels = np.float32(2**16) / (unit * _MAX - unit * _MIN)

    def scaled(arguments: np.ndarray) -> np.ndarray:
        is_positive = arguments > 0.0
        roots = np.sqrt(np.where(is_positive, arguments, one))
        values = np.where(is_positive, one / roots, _MAX * unit)
        return values * levels

    start = low + np.arange(size, dtype=np.float32) * distance
    end = low + np.arange(1, size + 1, dtype=np.float32) * distance
    values = _rounded(scaled(start))
    line = _rounded((scaled(end) + values) / two)
    errors = line - _rounded(scaled(start + distance / two))
    table = np.append(
        values - _rounded(errors / two), _rounded(scaled(high.reshape(1)))
    )
    return np.clip(table, _MIN, _MAX).astype(np.int64)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Rounds float32, halves away from zero."""
    steps = np.floor(np.abs(values.astype(np.float64)) + 0.5)
    return np.copysign(steps, values).astype(np.float32)


def looked_up(table: np.ndarray, levels: tf.Tensor) -> tf.Tensor:
    """Returns a function of levels, on straight lines between its values.

    Args:
      table: int64 [513]; see `inverse_root_table`.
      levels: int64, of 16 bits.
    """
    size = np.int64(2**_TABLE_BITS)
    index = tf.bitwise.right_shift(levels - _MIN, np.int64(_TABLE_BITS))
    rest = tf.bitwise.bitwise_and(levels, size - 1)
    start, end = tf.gather(table, index), tf.gather(table, index + 1)
    delta = (end - start) * rest + size // 2
    return start + tf.bitwise.right_shift(delta, np.int64(_TABLE_BITS))
