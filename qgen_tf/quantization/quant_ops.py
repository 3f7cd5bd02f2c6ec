"""The arithmetic of uniform quantizers.

A quantizer with step size `s` and levels `low..high` maps a value `v` to
`s * clip(round(v / s), low, high)`; `round` is to the nearest even integer, as
the integer runtime rounds.
"""

from __future__ import annotations

import tensorflow as tf


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
    spread 8 bits over some 20 times the mean and leave most levels unused.

    Args:
      mean_abs: mean of |v|, one for each step size.
      max_abs: maximum of |v|, one for each step size.
      high: largest integer level, at least 1.

    Returns:
      Positive step sizes of the same shape.
    """
    lsq = 2.0 * mean_abs / float(high) ** 0.5
    return positive_step_size(tf.minimum(lsq, max_abs / float(high)), high)


def positive_step_size(step_size: tf.Tensor, high: int) -> tf.Tensor:
    """Puts a range of one in the place of a step size of zero.

    Where all values are zero (a pruned filter, a residual branch that starts
    with a scale of zero) no statistic tells a step size; a tiny one would keep
    the values out of range for ever.
    """
    return tf.where(step_size > 0.0, step_size, 1.0 / float(high))


@tf.custom_gradient
def _quantize(values, step_size, low, high):
    ratio = values / step_size
    clipped = tf.clip_by_value(ratio, low, high)
    levels = tf.round(clipped)

    def grad(upstream):
        # Constants of the local linear form: v passes inside the range, s
        # scales the rounding error inside and the end level outside. With
        # them held fixed the second derivatives agree with the first ones.
        inside = tf.stop_gradient(tf.cast(ratio == clipped, values.dtype))
        slope = tf.stop_gradient(levels - inside * ratio)
        return (
            upstream * inside,
            _sum_to_shape(upstream * slope, step_size),
            None,
            None,
        )

    return levels * step_size, grad


def _sum_to_shape(values, like):
    """Sums `values` over the axes that broadcasting `like` added."""
    if not like.shape.rank:
        return tf.reduce_sum(values)
    axes = [axis for axis, size in enumerate(like.shape) if size == 1]
    return tf.reduce_sum(values, axes, keepdims=True)


def quantize(
    values: tf.Tensor, step_size: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """Rounds values to the grid, with the gradients of LSQ.

    Forward: `s * clip(round(v / s), low, high)`. Backward (Esser et al. 2020,
    arXiv 1902.08153, equations 2, 3 and 5): with respect to `v` 1 inside the
    range and 0 outside; with respect to `s` `round(v/s) - v/s` inside, `low`
    below and `high` above. Both are held constant in second derivatives, so
    that a Hessian is that of the loss seen through a locally linear quantizer.

    Args:
      values: float tensor of any shape.
      step_size: positive scalar, or a tensor of the rank of `values` with size
        1 on every axis over which a step is shared.
      low: smallest level, an integer or a scalar of the type of `values`.
      high: largest level, likewise.

    Returns:
      The quantized values, of the shape of `values`.
    """
    low = tf.cast(low, values.dtype)
    return _quantize(values, step_size, low, tf.cast(high, values.dtype))


@tf.custom_gradient
def binarize(values: tf.Tensor, step_size: tf.Tensor) -> tf.Tensor:
    """Rounds values to one bit: `s * sign(v)`, where the sign of 0 is 1.

    Backward: with respect to `v` 1 where `|v| <= 2s`, which are the two bins
    of width 2s, and 0 elsewhere (straight-through); with respect to `s`
    `sign(v)`, the exact derivative.

    Args:
      values: float tensor of any shape.
      step_size: like that of `quantize`.
    """
    signs = tf.where(values >= 0.0, tf.ones_like(values), -1.0)

    def grad(upstream):
        inside = tf.cast(tf.abs(values) <= 2.0 * step_size, values.dtype)
        return (
            upstream * tf.stop_gradient(inside),
            _sum_to_shape(upstream * tf.stop_gradient(signs), step_size),
        )

    return signs * step_size, grad


@tf.custom_gradient
def straight_through(values: tf.Tensor, rounded: tf.Tensor) -> tf.Tensor:
    """Returns `rounded`; its gradient is taken for that of `values`."""
    return tf.identity(rounded), lambda upstream: (upstream, None)


@tf.custom_gradient
def scale_gradient(values: tf.Tensor, scale: tf.Tensor, limit: float):
    """Returns `values`; their gradient is scaled, then clipped.

    What is clipped is the sum of the gradients of all replicas, so that a
    distributed model trains as one on a single device.

    Args:
      values: float tensor.
      scale: positive constant of the same shape.
      limit: largest magnitude of the scaled gradient.
    """

    def grad(upstream):
        scaled, replicas = upstream * scale, 1
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            replicas = context.num_replicas_in_sync
            scaled = context.all_reduce(tf.distribute.ReduceOp.SUM, scaled)
        clipped = tf.clip_by_value(scaled, -limit, limit)
        return clipped / replicas, None, None

    return tf.identity(values), grad
