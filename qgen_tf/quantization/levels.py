"""The integers of a grid, and the step size that training starts from."""

from __future__ import annotations

import tensorflow as tf

SMALLEST_STEP = 2.0**-25  # 255 of these are more than 1e-6


def level_range(
    num_bits: int, *, signed: bool, narrow: bool
) -> tuple[int, int]:
    """Returns the smallest and the largest integer level.

    With b bits, and `-Qn..Qp` for the levels:

    | bits | signed | narrow | Qn        | Qp        | levels  | used for   |
    | ---- | ------ | ------ | --------- | --------- | ------- | ---------- |
    | 1    | yes    | yes    | 1         | 1         | 2       | weights    |
    | 2..8 | yes    | yes    | 2^(b-1)-1 | 2^(b-1)-1 | 2^b - 1 | weights    |
    | 2..8 | yes    | no     | 2^(b-1)   | 2^(b-1)-1 | 2^b     | signed     |
    | 2..8 | no     | no     | 0         | 2^b - 1   | 2^b     | after ReLU |

    Weights are narrow because the runtime stores them so, and because a
    negative BatchNorm scale must be able to flip the sign of every level. One
    bit is the sign: -1 and 1, without 0.

    Args:
      num_bits: b, in 1..8.
      signed: whether levels are on both sides of zero.
      narrow: whether the level `-2^(b-1)` is left out; signed only.

    Raises:
      ValueError: `num_bits` is out of range, or unsigned levels are narrow.
    """
    smallest = 1 if narrow else 2
    if not smallest <= num_bits <= 8:
        raise ValueError(f"num_bits is {num_bits}, not in {smallest}..8.")
    if not signed:
        if narrow:
            raise ValueError("unsigned levels cannot be narrow.")
        return 0, 2**num_bits - 1
    if num_bits == 1:
        return -1, 1
    high = 2 ** (num_bits - 1) - 1
    return (-high if narrow else -high - 1), high


def initial_step_size(
    mean_abs: tf.Tensor, max_abs: tf.Tensor, high: int
) -> tf.Tensor:
    """Returns the step size that training starts from.

    `min(2 * mean|v| / sqrt(high), max|v| / high)`: the rule of LSQ (Esser et
    al. 2020, section 2.1), never wider than the data. The rule alone would
    spread 8 bits over some 20 times the mean and leave most levels unused. The
    data end a little inside of the last level, so that no rounding decides
    whether the gradient of the largest value passes.

    Args:
      mean_abs: mean of |v|, one for each step size.
      max_abs: maximum of |v|, one for each step size.
      high: largest integer level, at least 1.

    Returns:
      Positive step sizes of the same shape.
    """
    lsq = 2.0 * mean_abs / float(high) ** 0.5
    reach = max_abs * (1.0 + 1e-6) / float(high)
    return positive_step_size(tf.minimum(lsq, reach), high)


def positive_step_size(step_size: tf.Tensor, high: int) -> tf.Tensor:
    """Puts a range of one in the place of a step size of zero, or nearly.

    Where all values are zero (a pruned filter, a residual branch that starts
    with a scale of zero) no statistic tells a step size; a tiny one would keep
    the values out of range for ever. The integer runtime knows no range below
    1e-6. NaN, for what is not known, stays.
    """
    return tf.where(step_size < SMALLEST_STEP, 1.0 / float(high), step_size)
