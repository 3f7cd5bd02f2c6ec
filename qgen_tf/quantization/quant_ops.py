"""The arithmetic of uniform quantizers.

A quantizer with bin width (step size) `s` and levels `lo..hi` maps a value `v`
to `s * clip(round(v / s), lo, hi)`; `round` is to the nearest even integer, as
the integer runtime rounds.
"""

from __future__ import annotations

import tensorflow as tf


def level_range(
    num_bits: int, *, signed: bool, narrow: bool
) -> tuple[int, int]:
    """Returns the smallest and the largest integer level.

    | signed | narrow | levels                          | used for            |
    | ------ | ------ | ------------------------------- | ------------------- |
    | yes    | yes    | `-(2^(b-1) - 1) .. 2^(b-1) - 1` | weights             |
    | yes    | no     | `-2^(b-1) .. 2^(b-1) - 1`       | signed activations  |
    | no     | no     | `0 .. 2^b - 1`                  | after a ReLU        |

    Weights are narrow because the runtime stores them so, and because a
    negative BatchNorm scale must be able to flip the sign of every level.

    Args:
      num_bits: b, in 2..8.
      signed: whether levels are on both sides of zero.
      narrow: whether the level `-2^(b-1)` is left out; signed only.

    Raises:
      ValueError: `num_bits` is out of range, or unsigned levels are narrow.
    """
    if not 2 <= num_bits <= 8:
        raise ValueError(f"num_bits is {num_bits}, not in 2..8.")
    if not signed:
        if narrow:
            raise ValueError("unsigned levels cannot be narrow.")
        return 0, 2**num_bits - 1
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
      high: largest integer level.

    Returns:
      Positive step sizes of the same shape; where all values are zero, the
      smallest step that keeps the arithmetic finite.
    """
    lsq = 2.0 * mean_abs / float(high) ** 0.5
    return tf.maximum(tf.minimum(lsq, max_abs / float(high)), 1e-8)


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
    values: tf.Tensor, step_size: tf.Tensor, low: int, high: int
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
      low: smallest level.
      high: largest level.

    Returns:
      The quantized values, of the shape of `values`.
    """
    return _quantize(values, step_size, float(low), float(high))


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
