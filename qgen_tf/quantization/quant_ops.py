"""The arithmetic of uniform quantizers.

A quantizer with step size `s` and levels `low..high` maps a value `v` to
`s * clip(round(v / s), low, high)`; `round` is to the nearest even integer, as
the integer runtime rounds.

On a CPU each elementwise kernel of TensorFlow is one pass over memory, and a
quantizer of activations costs what its passes cost. With one step size a
tensor, kernels that TensorFlow has for other ends do several of them at once.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf
from tf_keras.src.utils import control_flow_util

from qgen_tf.quantization.loss_scale import current_loss_scale

# Of the rounding kernel where it does not clip: wider than any quantizer.
_WIDE_BITS = 16

# In step sizes: rounding errors are at most 1/2, clipped values at least 1.
_ERROR_REACH = 0.75

# Values from which on the gradient of a ReLU is one.
_SMALLEST = np.finfo(np.float32).tiny


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


def _clipping_bits(
    low: int | tf.Tensor, high: int | tf.Tensor, *, nonnegative: bool
) -> int | None:
    """Returns at how many bits the rounding kernel clips as it should.

    With b bits it clips at the levels `-2^(b-1)` and `2^(b-1) - 1`.
    """
    if not isinstance(low, int) or not isinstance(high, int):
        return None
    num_bits = high.bit_length() + 1
    fits_below = low == -(2 ** (num_bits - 1)) or (low == 0 and nonnegative)
    return num_bits if fits_below and high == 2 ** (num_bits - 1) - 1 else None


def _fused_quantized(
    values: tf.Tensor,
    step_size: tf.Tensor,
    ends: tuple[tf.Tensor, tf.Tensor],
    clipping_bits: int | None,
) -> tf.Tensor:
    """Returns `s * round(clip(v) * (1 / s))`, to the bit, in one or two passes.

    The lower end of the kernel's range is a power of two times s. Its scale,
    the quotient of the two, is therefore 1 / s rounded once, and the quotient
    that it multiplies levels with is s itself. The kernel refuses NaN; an
    infinite range makes it return NaN.
    """
    if not clipping_bits:
        values = tf.raw_ops.ClipByValue(
            t=values, clip_value_min=ends[0], clip_value_max=ends[1]
        )
    num_bits = clipping_bits or _WIDE_BITS
    infinity = tf.constant(np.inf, step_size.dtype)
    finite = tf.where(tf.math.is_nan(step_size), infinity, step_size)
    return tf.raw_ops.QuantizeAndDequantizeV2(
        input=values,
        input_min=-(2.0 ** (num_bits - 1)) * finite,
        input_max=tf.constant(0.0, step_size.dtype),
        signed_input=True,
        num_bits=num_bits,
        range_given=True,
        round_mode="HALF_TO_EVEN",
        narrow_range=False,
        axis=-1,
    )


def _selected(
    x: tf.Tensor,
    values: tf.Tensor,
    low: tf.Tensor,
    high: tf.Tensor,
    *,
    fused: bool,
) -> tf.Tensor:
    """Returns x where `low <= values <= high`, 0 elsewhere."""
    if not fused:
        inside = tf.logical_and(values >= low, values <= high)
        return x * tf.cast(inside, x.dtype)
    return tf.raw_ops.QuantizeAndDequantizeV4Grad(
        gradients=x, input=values, input_min=low, input_max=high
    ).input_backprop


def _inner(
    a: tf.Tensor, b: tf.Tensor, like: tf.Tensor, *, fused: bool
) -> tf.Tensor:
    """Sums `a * b` over the axes that broadcasting `like` added."""
    if fused:  # a product of matrices, which is not written to memory
        product = tf.matmul(
            tf.reshape(a, [1, -1]), tf.reshape(b, [1, -1]), transpose_b=True
        )
        return tf.reshape(product, [])
    return _sum_to_shape(a * b, like)


def _sum_to_shape(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums `values` over the axes that broadcasting `like` added."""
    if not like.shape.rank:
        return tf.reduce_sum(values)
    axes = [axis for axis, size in enumerate(like.shape) if size == 1]
    return tf.reduce_sum(values, axes, keepdims=True)


def quantize(
    values: tf.Tensor,
    step_size: tf.Tensor,
    low: int | tf.Tensor,
    high: int | tf.Tensor,
    *,
    nonnegative: bool = False,
    values_stay: bool = False,
    learned: bool = False,
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
      low: smallest level, at most 0: an integer or a scalar of the type of
        `values`. Integers take less time and memory in training.
      high: largest level, likewise; at least 0 and less than 2^15.
      nonnegative: whether no value is below 0, as behind a ReLU; where `low` is
        0 then nothing is clipped there.
      values_stay: whether `values` are in memory until the backward pass in any
        case, as weights are; rounding errors are then computed there, and not
        held as well.
      learned: whether the step size trains. Its gradient is then computed
        before that of the values is handed on, so that what it needs is let go
        before the layers below; otherwise a graph leaves it out.

    Returns:
      The quantized values, of the shape of `values`.
    """
    fused = _is_fused(step_size)
    clipping_bits = _clipping_bits(low, high, nonnegative=nonnegative)
    relu_input = _relu_input(values) if fused and nonnegative else None
    # A clipped value is then further from 0 than any value from its level, so
    # that the error tells which is which and `values` need not be kept.
    are_known = isinstance(low, int) and isinstance(high, int)
    error_tells = are_known and low < 0 < high
    low = tf.convert_to_tensor(low, values.dtype)
    high = tf.convert_to_tensor(high, values.dtype)

    @tf.custom_gradient
    def rounded(_, step_size):
        ends = (low * step_size, high * step_size)
        if fused:
            quantized = _fused_quantized(values, step_size, ends, clipping_bits)
        else:
            clipped = tf.clip_by_value(values, *ends)
            quantized = tf.round(clipped * (1.0 / step_size)) * step_size

        def error():
            return quantized - _selected(values, values, *ends, fused=fused)

        held = error() if error_tells and not values_stay else values

        def grad(upstream):
            upstream = tf.convert_to_tensor(upstream)  # of tf.gather: slices
            kept, reach = held, ends
            if error_tells:
                reach = (-_ERROR_REACH * step_size, _ERROR_REACH * step_size)
                if values_stay:
                    with tf.control_dependencies([upstream]):  # not before
                        kept = error()
            elif relu_input is not None:
                reach = (_SMALLEST, ends[1])

            @tf.custom_gradient
            def select(x):
                # Linear and symmetric, hence its own gradient. The one that
                # TensorFlow has registered for the kernel is wrong.
                return _selected(x, kept, *reach, fused=fused), select

            # Constants of the local linear form: v passes inside the range, s
            # scales the rounding error inside and the end level outside. With
            # them held fixed the second derivatives agree with the first ones.
            passed = select(upstream)
            inner = functools.partial(_inner, like=step_size, fused=fused)
            if error_tells:
                of_step = inner(upstream, tf.stop_gradient(kept))
            else:  # the error is the level, less the value where it passes
                of_step = inner(upstream, tf.stop_gradient(quantized))
                of_step -= inner(passed, tf.stop_gradient(values))
            if learned:
                with tf.control_dependencies([of_step]):
                    passed = tf.identity(passed)
            return passed, of_step / tf.stop_gradient(step_size)

        return quantized, grad

    return rounded(values if relu_input is None else relu_input, step_size)


def _relu_input(values: tf.Tensor) -> tf.Tensor | None:
    """Returns what the ReLU read that computed `values`, if one did.

    In eager mode nobody knows; its gradient then takes a pass of its own.
    """
    if tf.executing_eagerly() or values.op.type != "Relu":
        return None
    return values.op.inputs[0]


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


def bounded_gradient(gradient: tf.Tensor, limit: float) -> tf.Tensor:
    """Clips the gradient of a variable of a quantizer.

    What is clipped is the sum of the gradients of all replicas, so that a
    distributed model trains as one on a single device.

    Args:
      gradient: of this replica.
      limit: largest magnitude of the sum, for a loss that is not scaled.

    Returns:
      The share of this replica in the clipped sum.
    """
    limit *= current_loss_scale()
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.clip_by_value(gradient, -limit, limit)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradient)
    clipped = tf.clip_by_value(total, -limit, limit)
    return clipped / context.num_replicas_in_sync


@tf.custom_gradient
def scale_gradient(values: tf.Tensor, scale: tf.Tensor, limit: float):
    """Returns `values`; their gradient is scaled, then bounded.

    Args:
      values: float tensor.
      scale: positive constant of the same shape.
      limit: see `bounded_gradient`.
    """

    def grad(upstream):
        return bounded_gradient(upstream * scale, limit), None, None

    return tf.identity(values), grad
