"""The arithmetic of uniform quantizers.

A quantizer with step size `s` and levels `low..high` maps a value `v` to
`s * clip(round(v / s), low, high)`; `round` is to the nearest even integer, as
the integer runtime rounds.

On a CPU each elementwise kernel of TensorFlow is one pass over memory, and a
quantizer of activations costs what its passes cost. With one step size a
tensor, kernels that TensorFlow has for other ends do several of them at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tf_keras.src.utils import control_flow_util

# The range of the kernel below, far wider than that of any quantizer, whose
# own range is what values were clipped to before.
_KERNEL_BITS = 16


def _is_fused(step_size: tf.Tensor) -> bool:
    """Whether one-pass kernels serve: one step size, on a CPU, without XLA.

    XLA has no QuantizeAndDequantizeV4Grad and fuses the plain operations. On a
    GPU passes are cheap, but these kernels take their range from the host, so
    that each call would wait for the device.
    """
    return (
        not step_size.shape.rank
        and not tf.config.list_logical_devices("GPU")
        and not control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def _rounded(
    values: tf.Tensor, step_size: tf.Tensor, *, fused: bool
) -> tf.Tensor:
    """Returns `s * round(v * (1 / s))`, the same bits either way.

    The lower end of the kernel's range is a power of two times s. Its scale,
    the quotient of the two, is therefore 1 / s rounded once, and the quotient
    that it multiplies levels with is s itself. The kernel refuses NaN; an
    infinite range makes it return NaN.
    """
    if not fused:
        return tf.round(values * (1.0 / step_size)) * step_size
    infinity = tf.constant(np.inf, step_size.dtype)
    finite = tf.where(tf.math.is_nan(step_size), infinity, step_size)
    return tf.raw_ops.QuantizeAndDequantizeV2(
        input=values,
        input_min=-(2.0 ** (_KERNEL_BITS - 1)) * finite,
        input_max=tf.zeros_like(step_size),
        signed_input=True,
        num_bits=_KERNEL_BITS,
        range_given=True,
        round_mode="HALF_TO_EVEN",
        narrow_range=False,
        axis=-1,
    )


def _clipped(
    values: tf.Tensor, low: tf.Tensor, high: tf.Tensor, *, fused: bool
) -> tf.Tensor:
    if not fused:
        return tf.clip_by_value(values, low, high)
    return tf.raw_ops.ClipByValue(
        t=values, clip_value_min=low, clip_value_max=high
    )


def _selector(
    values: tf.Tensor, low: tf.Tensor, high: tf.Tensor, *, fused: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the map of x to x where `low <= values <= high`, 0 elsewhere.

    It is linear in x and symmetric, so that it is its own gradient. The one
    that TensorFlow has registered for this kernel is wrong, and is not used.
    """

    @tf.custom_gradient
    def select(x: tf.Tensor):
        if fused:
            selected, _, _ = tf.raw_ops.QuantizeAndDequantizeV4Grad(
                gradients=x, input=values, input_min=low, input_max=high
            )
        else:
            inside = tf.logical_and(values >= low, values <= high)
            selected = x * tf.cast(inside, x.dtype)
        return selected, select

    return select


@tf.custom_gradient
def _quantize(values, step_size, low, high):
    fused = _is_fused(step_size)
    lowest, highest = low * step_size, high * step_size
    clipped = _clipped(values, lowest, highest, fused=fused)
    quantized = _rounded(clipped, step_size, fused=fused)

    def grad(upstream):
        # Constants of the local linear form: v passes inside the range, s
        # scales the rounding error inside and the end level outside. With
        # them held fixed the second derivatives agree with the first ones.
        # The error waits for `upstream`: it is not kept since the forward
        # pass.
        select = _selector(values, lowest, highest, fused=fused)
        with tf.control_dependencies([upstream]):
            error = tf.stop_gradient(quantized - select(values))
        of_step = _sum_to_shape(upstream * error, step_size)
        return (
            select(upstream),
            of_step / tf.stop_gradient(step_size),
            None,
            None,
        )

    return quantized, grad


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

    Forward: `s * clip(round(v / s), low, high)`, an exact multiple of s; the
    quotient is computed as `v * (1 / s)`, so that a value within rounding
    error of the middle between two levels may go to either. Backward (Esser et
    al. 2020, arXiv 1902.08153, equations 2, 3 and 5): with respect to `v` 1
    inside the range and 0 outside; with respect to `s` `round(v/s) - v/s`
    inside, `low` below and `high` above. Both are held constant in second
    derivatives, so that a Hessian is that of the loss seen through a locally
    linear quantizer.

    Args:
      values: float32 or float64 tensor of any shape.
      step_size: positive scalar, or a tensor of the rank of `values` with size
        1 on every axis over which a step is shared.
      low: smallest level, an integer or a scalar of the type of `values`.
      high: largest level, likewise; at most 2^15 - 1.

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
