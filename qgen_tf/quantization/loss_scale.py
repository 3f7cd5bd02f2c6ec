"""The factor that a loss is multiplied by, so that float16 gradients last."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from qgen_tf import errors

_factor = contextvars.ContextVar[Any]("loss_scale", default=None)


@contextlib.contextmanager
def loss_scale(optimizer: Any) -> Iterator[None]:
    """Tells quantizers how the optimizer scales the loss.

    The gradients of step sizes are clipped, and the limit is that of the loss
    as it is. `QATModel` does this in each step; a training loop of one's own,
    in float16, computes loss and gradients inside of

        with qgen_tf.quantization.loss_scale(optimizer):

    Args:
      optimizer: a `LossScaleOptimizer`, or any other, which does not scale.
    """
    token = _factor.set(getattr(optimizer, "loss_scale", 1.0))
    try:
        yield
    finally:
        _factor.reset(token)


def current_loss_scale() -> float | tf.Tensor:
    """Returns the factor: 1 where none was told."""
    factor = _factor.get()
    return 1.0 if factor is None else factor


def require_loss_scale(dtype: tf.DType) -> None:
    """Raises a ModelError if a loss may be scaled, and nobody told by what."""
    if dtype == tf.float16 and _factor.get() is None:
        raise errors.ModelError(
            "a quantized model in float16 is trained with a scaled loss, and "
            "its step sizes must know the factor: train qgen_tf.QATModel("
            "model), or call the model and the gradient tape inside of `with "
            "qgen_tf.quantization.loss_scale(optimizer):`; or choose the "
            "policy mixed_bfloat16, which needs no factor."
        )
