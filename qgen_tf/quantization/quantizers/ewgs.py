"""Element-wise gradient scaling on the grid of LSQ.

A straight-through gradient is the same for all values that round to one level.
EWGS (Lee et al. 2021, arXiv 2104.00903, equation 5) makes it larger for a
value that the update moves on towards the boundary of its bin:
`g * (1 + delta * sign(g) * e)`, with the rounding error e of the value. The
paper normalizes values to [0, 1] and adapts delta to the trace of the Hessian;
here e is in step sizes, at most 1/2, and delta is a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.quantizers.lsq import (
    LSQActivationQuantizer,
    LSQWeightQuantizer,
)
from qgen_tf.quantization.quantizers.variables import Variables

DELTA = 0.2


@tf.custom_gradient
def _scale_by_error(values, error, delta):
    def grad(upstream):
        factor = 1.0 + delta * tf.sign(upstream) * error
        return upstream * tf.stop_gradient(factor), None, None

    return tf.identity(values), grad


def _quantize(
    values: tf.Tensor,
    quantize: Callable[[tf.Tensor], tf.Tensor],
    step_size: tf.Tensor,
    delta: float,
) -> tf.Tensor:
    """Quantizes; the gradient of values that are not clipped is scaled."""
    error = tf.stop_gradient((values - quantize(values)) / step_size)
    return quantize(
        _scale_by_error(values, tf.clip_by_value(error, -0.5, 0.5), delta)
    )


@keras.utils.register_keras_serializable(package="qgen_tf")
class EWGSWeightQuantizer(LSQWeightQuantizer):
    """EWGS of weights.

    Attributes:
      delta: strength of the scaling, in 1 / step size; 0 is LSQ.
    """

    def __init__(
        self,
        num_bits: int,
        *,
        axes: tuple[int, ...] = (),
        delta: float = DELTA,
        learning_rate_multiplier: float = 1.0,
    ):
        super().__init__(
            num_bits,
            axes=axes,
            learning_rate_multiplier=learning_rate_multiplier,
        )
        self.delta = delta

    def quantize(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the float32 weight on its grid."""
        quantize = super().quantize
        return _quantize(
            weight,
            lambda values: quantize(values, variables),
            self.stored_step_size(variables),
            self.delta,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "delta": self.delta}


@keras.utils.register_keras_serializable(package="qgen_tf")
class EWGSActivationQuantizer(LSQActivationQuantizer):
    """EWGS of activations.

    Attributes:
      delta: strength of the scaling, in 1 / step size; 0 is LSQ.
    """

    def __init__(
        self,
        num_bits: int,
        *,
        signed: bool | None,
        delta: float = DELTA,
        learning_rate_multiplier: float = 1.0,
    ):
        super().__init__(
            num_bits,
            signed=signed,
            learning_rate_multiplier=learning_rate_multiplier,
        )
        self.delta = delta

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        quantize = super().quantize
        return _quantize(
            values,
            lambda inputs: quantize(inputs, training, variables),
            self.stored_step_size(variables),
            self.delta,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "delta": self.delta}
