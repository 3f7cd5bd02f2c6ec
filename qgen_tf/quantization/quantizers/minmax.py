"""The classical baseline: grids that span what was seen (Jacob et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import levels, quant_ops
from qgen_tf.quantization.quantizers.base import (
    ActivationQuantizer,
    WeightQuantizer,
)
from qgen_tf.quantization.quantizers.observer import Observer
from qgen_tf.quantization.quantizers.variables import Variables, add_variable

MOMENTUM = 0.99

_EXTREMES = {"minimum": tf.reduce_min, "maximum": tf.reduce_max}


@keras.utils.register_keras_serializable(package="qgen_tf")
class MinMaxWeightQuantizer(WeightQuantizer):
    """A grid up to the largest magnitude of the weights as they are.

    One bit is the sign, times the mean magnitude.
    """

    def step_size(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the step size: a scalar, or one for each channel."""
        function = tf.reduce_mean if self.num_bits == 1 else tf.reduce_max
        reach = self.reduce(function, tf.stop_gradient(tf.abs(weight)))
        return levels.positive_step_size(reach / self.high, self.high)

    def quantize(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the float32 weight on its grid."""
        step_size = self.step_size(weight, variables)
        if self.num_bits == 1:
            rounded = quant_ops.binarize(weight, step_size)
        else:
            rounded = quant_ops.quantize(
                weight, step_size, -self.high, self.high
            )
        return quant_ops.straight_through(weight, rounded)


@keras.utils.register_keras_serializable(package="qgen_tf")
class MinMaxActivationQuantizer(ActivationQuantizer):
    """A grid over moving averages of smallest and largest value (section 3.1).

    The averages move in training only, by the extremes over all replicas:
    these keep one grid. The zero point is an integer.

    Attributes:
      num_bits: 2..8.
      signed: False to keep the zero point at 0.
      momentum: of the averages, in [0, 1).
    """

    def __init__(
        self,
        num_bits: int,
        *,
        signed: bool | None,
        momentum: float = MOMENTUM,
    ):
        super().__init__(num_bits, signed=signed)
        self.momentum = momentum

    def build(self, tensor_shape, name, layer) -> Variables:
        """Creates the two averages; they are not yet known."""
        return {
            extreme: add_variable(
                layer,
                f"{name}_{extreme}",
                np.nan,
                limits=(-np.inf, np.inf),
                trainable=False,
            )
            for extreme in _EXTREMES
        }

    def calibrate(self, observer: Observer, variables: Variables) -> None:
        """Starts the averages with the extremes that were seen."""
        variables["minimum"].assign(observer.minimum)
        variables["maximum"].assign(observer.maximum)

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        if training and self.observer is None:
            for name, reduce in _EXTREMES.items():
                self._move(variables[name], reduce(values), reduce)
        step_size, zero_point = self._current(variables)
        return quant_ops.quantize(
            values, step_size, -zero_point, self.span - zero_point
        )

    def grid(self, variables: Variables) -> tuple[float, int]:
        """Returns step size (NaN before calibration) and zero point."""
        step_size, zero_point = self._current(variables)
        return float(step_size), int(np.nan_to_num(zero_point))

    def _current(self, variables: Variables) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the grid of the averages; zero is one of its levels."""
        minimum, maximum = (
            tf.stop_gradient(tf.convert_to_tensor(variables[name]))
            for name in _EXTREMES
        )
        low = 0.0 * minimum if self.signed is False else minimum
        low, high = tf.minimum(low, 0.0), tf.maximum(maximum, 0.0)
        step_size = levels.positive_step_size(
            (high - low) / self.span, self.span
        )
        return step_size, tf.round(-low / step_size)

    def _move(
        self,
        average: tf.Variable,
        extreme: tf.Tensor,
        reduce: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        """Moves an average towards the extreme of all replicas."""
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            gathered = context.all_gather(tf.reshape(extreme, [1]), axis=0)
            extreme = reduce(gathered)
        old = tf.convert_to_tensor(average)
        average.assign(self.momentum * old + (1.0 - self.momentum) * extreme)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum}
