"""PACT: activations clipped at a learned value."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import quant_ops
from qgen_tf.quantization.quantizers.base import ActivationQuantizer
from qgen_tf.quantization.quantizers.variables import (
    Variables,
    features,
)

DECAY = 1e-4


@keras.utils.register_keras_serializable(package="qgen_tf")
class PACTActivationQuantizer(ActivationQuantizer):
    """PACT (Choi et al. 2018, arXiv 1805.06085, equations 1 to 3).

    The clipping value `alpha = s * high` is learned: its gradient is 1 where
    a value is clipped at the top, -1 where one is clipped below (signed levels
    only, which the paper does not have) and 0 elsewhere. A loss of
    `decay * alpha^2` pulls it down.

    Attributes:
      num_bits: 2..8.
      signed: see `ActivationQuantizer`.
      decay: L2 decay of alpha.
      learning_rate_multiplier: of alpha.
    """

    def __init__(
        self,
        num_bits: int,
        *,
        signed: bool | None,
        decay: float = DECAY,
        learning_rate_multiplier: float = 1.0,
    ):
        super().__init__(num_bits, signed=signed)
        self.decay = decay
        self.learning_rate_multiplier = learning_rate_multiplier

    def add_log_step(self, layer, name, initial, **settings) -> tf.Variable:
        """Adds the variable that holds the step size, with the decay."""
        return super().add_log_step(
            layer, name, initial, regularizer=self._decay, **settings
        )

    def _decay(self, log_step: tf.Tensor) -> tf.Tensor:
        high = self.span - self._symmetric_zero_point(minimum=-1.0)
        alpha = tf.exp(self.learning_rate_multiplier * log_step) * high
        return self.decay * tf.square(alpha)

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        low, high = self.level_bounds(variables)
        step_size = self.training_step_size(variables, features(values), high)
        clipped = tf.clip_by_value(values, low * step_size, high * step_size)
        return quant_ops.straight_through(
            clipped, quant_ops.quantize(values, step_size, low, high)
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "decay": self.decay,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
