"""The variables of quantizers, and the step size that trains in one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tf_keras.src.mixed_precision import autocast_variable

from qgen_tf.quantization import levels, quant_ops

Variables: TypeAlias = dict[str, tf.Variable]

MAX_GRADIENT = 0.1
_LOG_STEP_LIMITS = (math.log(levels.SMALLEST_STEP), 20.0)


def in_float32(values: Any) -> tf.Tensor:
    """Reads a tensor or variable in float32, whatever the layer computes in."""
    with autocast_variable.enable_auto_cast_variables(None):
        return tf.cast(tf.convert_to_tensor(values), tf.float32)


def add_variable(
    layer: Any,
    name: str,
    initial: Any,
    *,
    limits: tuple[float, float],
    trainable: bool,
    regularizer: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Variable:
    """Adds a variable to a wrapper; it is float32 under mixed precision too.

    Args:
      layer: tfmot's wrapper of a layer.
      name: ends the name of the variable.
      initial: its first value.
      limits: smallest and largest value that an update may give it.
      trainable: whether the optimizer sees it.
      regularizer: from its value to a loss that `fit` adds.
    """
    return layer.add_weight(
        name=name,
        shape=np.shape(initial),
        initializer=lambda shape, dtype: tf.cast(initial, dtype),
        dtype=tf.float32,
        trainable=trainable,
        constraint=lambda value: tf.clip_by_value(value, *limits),
        regularizer=regularizer,
        experimental_autocast=False,
    )


class LearnedStep:
    """A step size that trains, mixed into quantizers.

    It is stored as its logarithm, which is kept within limits: no update can
    make the step size zero or negative. The gradient of the logarithm is
    scaled such that plain gradient descent changes the step size, relative to
    itself, as LSQ does: by `g * dL/ds / s`, with `g = 1 / sqrt(N * high)`
    (Esser et al. 2020, section 2.2). Beyond 0.1 this gradient is clipped:
    where many weights are outside of the range of 8 bits it exceeds 100, and
    gradient descent at a learning rate of 0.01 would diverge.

    What the optimizer sees is the logarithm divided by the learning-rate
    multiplier. An update of that by `lr * x` moves the logarithm by
    `multiplier * lr * x`, whichever the optimizer.

    Attributes:
      learning_rate_multiplier: positive; learning rate of the step size in
        units of that of the weights.
    """

    learning_rate_multiplier: float = 1.0

    def add_log_step(
        self, layer: Any, name: str, initial: tf.Tensor, **settings: Any
    ) -> tf.Variable:
        """Adds the variable; `settings` are those of `add_variable`."""
        low, high = _LOG_STEP_LIMITS
        return add_variable(
            layer,
            f"{name}_log_step",
            tf.math.log(initial) / self.learning_rate_multiplier,
            limits=(
                low / self.learning_rate_multiplier,
                high / self.learning_rate_multiplier,
            ),
            **{"trainable": True, **settings},
        )

    def assign_step_size(
        self, variables: Variables, step_size: tf.Tensor
    ) -> None:
        """Stores a step size."""
        log_step = tf.math.log(step_size) / self.learning_rate_multiplier
        variables["log_step"].assign(log_step)

    def stored_step_size(self, variables: Variables) -> tf.Tensor:
        """Returns the step size."""
        # A custom gradient takes tensors only: no variable of several replicas.
        log_step = tf.convert_to_tensor(variables["log_step"])
        return tf.exp(self.learning_rate_multiplier * log_step)

    def training_step_size(
        self,
        variables: Variables,
        values_per_step: int,
        high: int | tf.Tensor,
    ) -> tf.Tensor:
        """Returns the step size; its gradient is scaled as LSQ does.

        Args:
          variables: with "log_step".
          values_per_step: N, weights or features that share a step size.
          high: largest integer level.
        """
        g = lsq_gradient_scale(values_per_step, high)

        @tf.custom_gradient
        def exponential(log_step):
            step_size = tf.exp(self.learning_rate_multiplier * log_step)

            def grad(upstream):
                # The multiplier is in the movement of log(s), not in this.
                return quant_ops.bounded_gradient(
                    upstream * (g / step_size), MAX_GRADIENT
                )

            return step_size, grad

        return exponential(tf.convert_to_tensor(variables["log_step"]))


def lsq_gradient_scale(
    values_per_step: int, high: int | tf.Tensor
) -> float | tf.Tensor:
    """Returns `g = 1 / sqrt(N * high)` (Esser et al. 2020, section 2.2)."""
    if isinstance(high, int):
        return 1.0 / math.sqrt(values_per_step * high)
    return tf.math.rsqrt(float(values_per_step) * high)


def features(values: tf.Tensor) -> int:
    """Returns the number of values of one example."""
    return math.prod(values.shape[1:])
