"""LayerNormalization in the arithmetic of the runtime's 16-bit operators.

XNNPACK has none of them. The runtime's own kernels, plain and optimized, agree
but for matrix multiplications by a constant.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from export.fixed_point import Multiplier, divided_by_power, steps_of
from qgen_tf.compat import keras
from qgen_tf.quantization.layer_norm import NormGrid

_MIN, _MAX = -(2**15), 2**15 - 1
# the runtime tabulates a function at every 2^7th level
_TABLE_BITS = 7
# a step of the outputs is 2^8 steps of beta
_OUTPUT_BITS = 8


class RuntimeNorm(keras.layers.Layer):
    """What a file computes for a LayerNormalization, but its last operator.

    The outputs are in whole steps of 16 bits; the grid behind cuts them off.
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
        self._fine_table = inverse_root_table(
            grid.unit_power_step_size, grid.correction_step_size
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized inputs; see `export.norms`."""
        grid = self._grid
        unit = grid.unit_step_size
        x = self._centered(steps_of(inputs, grid.input_step_size))
        inverse = self._inverse_root(x)
        x = _product(
            x, inverse, grid.centered_step_size, grid.inverse_step_size, unit
        )
        correction = self._correction(x, inverse)
        step = grid.correction_step_size
        scale = self._dense(
            correction * grid.factor_levels.astype(np.int64),
            step,
            grid.factor_step_sizes,
            grid.product_step_size,
        )
        last = grid.output_16_step_size
        x = _product(x, scale, unit, grid.product_step_size, last)
        # with a bias all kernels round as the plain one
        last = grid.beta_step_size
        beta = tf.constant(grid.beta_levels)
        beta = _dense_plain(beta, step, last / step, last)
        steps = divided_by_power(2 * x + beta, _OUTPUT_BITS)
        return tf.cast(steps, inputs.dtype) * grid.output_step_size

    def _centered(self, x: tf.Tensor) -> tf.Tensor:
        """Returns steps of the inputs without their mean, in finer ones."""
        grid = self._grid
        input_step, fine = grid.input_step_size, grid.centered_step_size
        total = 127 * tf.reduce_sum(x, -1, keepdims=True)
        mean = self._dense(total, input_step, grid.mean_step_size, fine)
        return _saturated(x * round(input_step / fine) - mean)

    def _inverse_root(self, x: tf.Tensor) -> tf.Tensor:
        """Returns one over the length of x, roughly."""
        fine = self._grid.centered_step_size
        inverses = [
            looked_up(table, _squared(x, fine, step))
            for table, step in zip(
                self._tables, self._grid.power_step_sizes, strict=True
            )
        ]
        return functools.reduce(tf.minimum, inverses)

    def _correction(self, x: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
        """Returns what makes the length of x, which is near one, one."""
        grid = self._grid
        unit, step = grid.unit_step_size, grid.unit_power_step_size
        epsilon = self._dense(
            inverse * grid.epsilon_levels.astype(np.int64),
            grid.inverse_step_size,
            grid.epsilon_step_size,
            unit,
        )
        power = _squared(x, unit, step)
        power += _product(epsilon, epsilon, unit, unit, step)
        return looked_up(self._fine_table, _saturated(power))


def _squared(x: tf.Tensor, x_step: float, output_step: float) -> tf.Tensor:
    """Returns the sum of squares along the last axis."""
    total = tf.reduce_sum(x * x, -1, keepdims=True)
    ratio = _ratio(x_step, x_step, output_step)
    return _saturated(Multiplier.of(ratio).wide(total))


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
