"""LayerNormalization in the arithmetic of the runtime's 16-bit operators.

XNNPACK has none of them. The runtime's own kernels, plain and optimized, agree
but for matrix multiplications by a constant.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from qgen_tf.quantization.fixed_point import (
    Multiplier,
    divided_by_power,
    float64,
    steps_of,
)
from qgen_tf.quantization.norm_grid import NormGrid

_MIN, _MAX = -(2**15), 2**15 - 1
# the runtime tabulates a function at every 2^7th level
_TABLE_BITS = 7
# a step of the outputs is 2^8 steps of beta
_OUTPUT_BITS = 8


def normalized(
    inputs: tf.Tensor, grid: NormGrid, *, is_plain: bool = False
) -> tf.Tensor:
    """Returns what the runtime computes of values that are on a grid.

    Args:
      inputs: float [..., channels].
      grid: of the layer.
      is_plain: see `NormArithmetic`.

    Returns:
      The same shape and type, in whole steps of the outputs, not cut at the
      ends of their grid.
    """
    return _normalized(inputs, grid.tensors, grid.epsilon, is_plain)


# The layers of a network share what is traced. Compiled, it is one pass over
# memory in the place of dozens, and a node of the graph in that of hundreds.
@tf.function(autograph=False, jit_compile=True)
def _normalized(
    inputs: tf.Tensor,
    tensors: dict[str, Any],
    epsilon: float,
    is_plain: bool,
) -> tf.Tensor:
    grid = NormGrid(**tensors, epsilon=epsilon)
    arithmetic = NormArithmetic(grid, is_plain=is_plain)
    levels = arithmetic(steps_of(inputs, grid.input_step_size))
    step = tf.cast(grid.output_step_size, inputs.dtype)
    return tf.cast(levels, inputs.dtype) * step


class NormArithmetic:
    """Whole numbers in, whole numbers out; see `export.norms`."""

    def __init__(self, grid: NormGrid, *, is_plain: bool = False):
        """Takes the integers of a layer.

        Args:
          grid: of the layer.
          is_plain: whether the reference kernels compute.
        """
        self._grid = grid
        self._dense = _dense_plain if is_plain else _dense

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Normalizes along the last axis.

        Args:
          x: int64, steps of the inputs.

        Returns:
          int64, steps of the outputs; they are not cut at the ends of a grid.
        """
        grid = self._grid
        unit = grid.unit_step_size
        x = self._centered(x)
        inverse = self._inverse_root(x)
        x = _product(
            x, inverse, grid.centered_step_size, grid.inverse_step_size, unit
        )
        correction = self._correction(x, inverse)
        step = grid.correction_step_size
        scale = self._dense(
            correction * tf.cast(grid.factor_levels, tf.int64),
            step,
            grid.factor_step_sizes,
            grid.product_step_size,
        )
        last = grid.output_16_step_size
        x = _product(x, scale, unit, grid.product_step_size, last)
        # with a bias all kernels round as the plain one
        last = grid.beta_step_size
        beta = _dense_plain(
            tf.cast(grid.beta_levels, tf.int64), step, last / step, last
        )
        return divided_by_power(2 * x + beta, _OUTPUT_BITS)

    def _centered(self, x: tf.Tensor) -> tf.Tensor:
        """Returns steps of the inputs without their mean, in finer ones."""
        grid = self._grid
        total = 127 * tf.reduce_sum(x, -1, keepdims=True)
        mean = self._dense(
            total,
            grid.input_step_size,
            grid.mean_step_size,
            grid.centered_step_size,
        )
        return _saturated(x * tf.cast(grid.finer_steps, tf.int64) - mean)

    def _inverse_root(self, x: tf.Tensor) -> tf.Tensor:
        """Returns one over the length of x, roughly."""
        grid = self._grid
        fine, inverse_step = grid.centered_step_size, grid.inverse_step_size
        total = tf.reduce_sum(x * x, -1, keepdims=True)
        inverses = [
            looked_up(
                inverse_root_table(step, inverse_step),
                _power(total, fine, step),
            )
            for step in grid.power_step_sizes
        ]
        return functools.reduce(tf.minimum, inverses)

    def _correction(self, x: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
        """Returns what makes the length of x, which is near one, one."""
        grid = self._grid
        unit, step = grid.unit_step_size, grid.unit_power_step_size
        epsilon = self._dense(
            inverse * tf.cast(grid.epsilon_levels, tf.int64),
            grid.inverse_step_size,
            grid.epsilon_step_size,
            unit,
        )
        power = _power(tf.reduce_sum(x * x, -1, keepdims=True), unit, step)
        power += _product(epsilon, epsilon, unit, unit, step)
        table = inverse_root_table(step, grid.correction_step_size)
        return looked_up(table, _saturated(power))


def _power(total: tf.Tensor, x_step: Any, output_step: Any) -> tf.Tensor:
    """Returns a sum of squares in steps of its own."""
    ratio = _ratio(x_step, x_step, output_step)
    return _saturated(Multiplier.of(ratio).wide(total))


def _saturated(levels: tf.Tensor) -> tf.Tensor:
    low, high = (tf.constant(end, tf.int64) for end in (_MIN, _MAX))
    return tf.clip_by_value(levels, low, high)


def _single(value: Any) -> tf.Tensor:
    """Rounds to float32, and returns that in float64.

    A sum, product, quotient or root of such numbers that is rounded once more
    is what float32 has, whatever order and kernels TensorFlow chooses: 53 bits
    are more than twice 24.
    """
    return tf.cast(tf.cast(float64(value), tf.float32), tf.float64)


def _ratio(step: Any, weight_steps: Any, output_step: Any) -> tf.Tensor:
    ratio = _single(weight_steps) * _single(step)
    if ratio.shape.num_elements() == 1:  # the kernels multiply in float32
        ratio = _single(ratio)
    return ratio / _single(output_step)


def _dense(sums: tf.Tensor, *steps: Any) -> tf.Tensor:
    return _saturated(Multiplier.of(_ratio(*steps)).upward(sums))


def _dense_plain(sums: tf.Tensor, *steps: Any) -> tf.Tensor:
    products = tf.round(tf.cast(sums, tf.float64) * _ratio(*steps))
    return _saturated(tf.cast(products, tf.int64))


def _product(
    a: tf.Tensor, b: tf.Tensor, a_step: Any, b_step: Any, output_step: Any
) -> tf.Tensor:
    # the kernel has the ratio in float32, as opposed to others
    ratio = _single(_single(a_step) * _single(b_step)) / _single(output_step)
    return _saturated(Multiplier.of(_single(ratio))(a * b))


def inverse_root_table(step: Any, output_step: Any) -> tf.Tensor:
    """Returns 1 / sqrt at every 2^7th level, as the operator RSQRT has it.

    Each value is moved so that the middle of the straight line to the next is
    off by half of what it was. The runtime computes in float32.

    Args:
      step: of the arguments.
      output_step: of the values.

    Returns:
      int64 [513], from the lowest level to the highest.
    """
    unit = _single(output_step)
    low, high = (_single(_single(step) * end) for end in (_MIN, _MAX))
    size = 2 ** (16 - _TABLE_BITS)
    distance = _single(_single(high - low) / size)
    levels = _single(_single(unit * _MAX) - _single(unit * _MIN))
    levels = _single(2.0**16 / levels)

    def scaled(arguments: tf.Tensor) -> tf.Tensor:
        is_positive = arguments > 0.0
        ones = tf.ones_like(arguments)
        roots = _single(tf.sqrt(tf.where(is_positive, arguments, ones)))
        values = _single(tf.where(is_positive, 1.0 / roots, _MAX * unit))
        return _single(values * levels)

    index = tf.range(size, dtype=tf.float64)
    start = _single(low + _single(index * distance))
    end = _single(low + _single((index + 1.0) * distance))
    middle = _single(start + _single(distance / 2.0))
    values = _rounded(scaled(start))
    line = _rounded(_single(_single(scaled(end) + values) / 2.0))
    errors = _single(line - _rounded(scaled(middle)))
    table = values - _rounded(errors / 2.0)
    table = tf.concat([table, _rounded(scaled(high))[tf.newaxis]], 0)
    return _saturated(tf.cast(table, tf.int64))


def _rounded(values: tf.Tensor) -> tf.Tensor:
    """Rounds what is in float32, halves away from zero."""
    return _single(tf.sign(values) * tf.floor(tf.abs(values) + 0.5))


def looked_up(table: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Returns a function of levels, on straight lines between its values.

    Args:
      table: int64 [513]; see `inverse_root_table`.
      levels: int64, of 16 bits.
    """
    size = 2**_TABLE_BITS
    bits = tf.constant(_TABLE_BITS, tf.int64)
    index = tf.bitwise.right_shift(levels - _MIN, bits)
    rest = tf.bitwise.bitwise_and(levels, size - 1)
    start, end = tf.gather(table, index), tf.gather(table, index + 1)
    delta = (end - start) * rest + size // 2
    return start + tf.bitwise.right_shift(delta, bits)
