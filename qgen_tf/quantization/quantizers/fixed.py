"""Grids of activations that do not train."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import quant_ops
from qgen_tf.quantization.quantizers.base import ActivationQuantizer
from qgen_tf.quantization.quantizers.observer import Observer
from qgen_tf.quantization.quantizers.variables import Variables


@keras.utils.register_keras_serializable(package="qgen_tf")
class CalibratedActivationQuantizer(ActivationQuantizer):
    """The grid that calibration finds, by the rule of LSQ; it stays."""

    trains_step = False

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        step_size = tf.stop_gradient(self.stored_step_size(variables))
        low, high = self.level_bounds(variables)
        return quant_ops.quantize(
            values, step_size, low, high, nonnegative=self.signed is False
        )


@keras.utils.register_keras_serializable(package="qgen_tf")
class FixedActivationQuantizer(ActivationQuantizer):
    """The grid that the integer runtime gives a function of fixed range.

    Attributes:
      num_bits: 2..8.
      step_size: positive.
      zero_point: integer in 0..2^b - 1.
    """

    def __init__(self, num_bits: int, *, step_size: float, zero_point: int):
        super().__init__(num_bits, signed=zero_point > 0)
        self.step_size = step_size
        self.zero_point = zero_point

    def build(self, tensor_shape, name, layer) -> Variables:
        """Creates nothing."""
        return {}

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        return quant_ops.quantize(
            values,
            tf.constant(self.step_size),
            -self.zero_point,
            self.span - self.zero_point,
        )

    def calibrate(self, observer: Observer, variables: Variables) -> None:
        """Does nothing: the grid does not depend on data."""

    def grid(self, variables: Variables) -> tuple[float, int]:
        """Returns step size and zero point."""
        return self.step_size, self.zero_point

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "num_bits": self.num_bits,
            "step_size": self.step_size,
            "zero_point": self.zero_point,
        }
