"""LSQ and what is built on it: a learned step size on a fixed set of levels."""

from __future__ import annotations

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
from qgen_tf.quantization.quantizers.variables import (
    MAX_GRADIENT,
    LearnedStep,
    Variables,
    features,
    in_float32,
    lsq_gradient_scale,
)


@keras.utils.register_keras_serializable(package="qgen_tf")
class LSQWeightQuantizer(LearnedStep, WeightQuantizer):
    """LSQ of weights (Esser et al. 2020, arXiv 1902.08153).

    Levels are signed and narrow. The first step sizes come from the weights
    that the layer has when it is wrapped. One bit is the sign of the weight;
    its step size starts at the mean magnitude (Rastegari et al. 2016, arXiv
    1603.05279, equation 6).

    Attributes:
      num_bits: 1..8.
      axes: axes of the weight that have a step size for each index; () for
        one step size in all.
      learning_rate_multiplier: of the step size.
    """

    def __init__(
        self,
        num_bits: int,
        *,
        axes: tuple[int, ...] = (),
        learning_rate_multiplier: float = 1.0,
    ):
        super().__init__(num_bits, axes=axes)
        self.learning_rate_multiplier = learning_rate_multiplier

    def build(self, tensor_shape, name, layer) -> Variables:
        """Creates the step sizes from the weights that `layer` has."""
        (weight,) = (
            variable
            for variable in layer.layer.weights
            if variable.name.split(":")[0].split("/")[-1] == name
        )
        initial = self.initial_step_size(in_float32(weight))
        return {"log_step": self.add_log_step(layer, name, initial)}

    def initial_step_size(self, weight: tf.Tensor) -> tf.Tensor:
        """Returns the step sizes that training starts from."""
        magnitudes = tf.abs(weight)
        mean_abs = self.reduce(tf.reduce_mean, magnitudes)
        if self.num_bits == 1:
            return levels.positive_step_size(mean_abs, self.high)
        max_abs = self.reduce(tf.reduce_max, magnitudes)
        return levels.initial_step_size(mean_abs, max_abs, self.high)

    def step_size(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the step size: a scalar, or one for each channel."""
        return self.stored_step_size(variables)

    def quantize(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the float32 weight on its grid."""
        steps = variables["log_step"].shape.num_elements()
        step_size = self.training_step_size(
            variables, weight.shape.num_elements() // steps, self.high
        )
        if self.num_bits == 1:
            return quant_ops.binarize(weight, step_size)
        return quant_ops.quantize(
            weight,
            step_size,
            -self.high,
            self.high,
            values_stay=True,
            learned=True,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }


@keras.utils.register_keras_serializable(package="qgen_tf")
class LSQActivationQuantizer(ActivationQuantizer):
    """LSQ of activations, one step size a tensor.

    Attributes:
      num_bits: 2..8.
      signed: see `ActivationQuantizer`.
      learning_rate_multiplier: of the step size.
    """

    def __init__(
        self,
        num_bits: int,
        *,
        signed: bool | None,
        learning_rate_multiplier: float = 1.0,
    ):
        super().__init__(num_bits, signed=signed)
        self.learning_rate_multiplier = learning_rate_multiplier

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        low, high = self.level_bounds(variables)
        step_size = self.training_step_size(variables, features(values), high)
        return quant_ops.quantize(
            values,
            step_size,
            low,
            high,
            nonnegative=self.signed is False,
            learned=True,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }


@keras.utils.register_keras_serializable(package="qgen_tf")
class LSQPlusWeightQuantizer(LSQWeightQuantizer):
    """LSQ+ of weights (Bhalgat et al. 2020, arXiv 2004.09576, section 3.2).

    Differs from LSQ in the first step size: `max(|m - 3d|, |m + 3d|) /
    2^(b-1)`, with mean m and standard deviation d of the weights.
    """

    def initial_step_size(self, weight: tf.Tensor) -> tf.Tensor:
        """Returns the step sizes that training starts from."""
        if self.num_bits == 1:
            return super().initial_step_size(weight)
        mean = self.reduce(tf.reduce_mean, weight)
        reach = tf.abs(mean) + 3.0 * self.reduce(tf.math.reduce_std, weight)
        return levels.positive_step_size(
            reach / 2 ** (self.num_bits - 1), self.high
        )


@keras.utils.register_keras_serializable(package="qgen_tf")
class LSQPlusActivationQuantizer(LSQActivationQuantizer):
    """LSQ+ of activations (Bhalgat et al. 2020, arXiv 2004.09576, section 3).

    The offset `-s * zero_point` is learned with the step size. It is an
    integer zero point in every step of training, since nothing else can be
    deployed: the integer moves when the learned value behind it passes a
    half. The gradient is that of equation 7: `-s` where a value is clipped and
    0 elsewhere. Calibration chooses both by the smallest squared error.
    """

    trains_zero_point = True

    def calibrate(self, observer: Observer, variables: Variables) -> None:
        """Sets step size and zero point by the smallest squared error."""
        low, high = min(observer.minimum, 0.0), max(observer.maximum, 0.0)
        if low == high:
            super().calibrate(observer, variables)
            return
        grids = [
            _range_grid(share * low, share * high, self.span)
            for share in np.linspace(0.05, 1.0, 96)
        ]
        errors = [
            _squared_error(observer.sample, step, zero_point, self.span)
            for step, zero_point in grids
        ]
        step_size, zero_point = grids[int(np.argmin(errors))]
        self.assign_step_size(variables, tf.constant(step_size, tf.float32))
        variables["zero_point"].assign(zero_point)

    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""
        learned = tf.convert_to_tensor(variables["zero_point"])
        rounded = tf.round(learned)
        high = tf.maximum(self.span - rounded, 1.0)
        step_size = self.training_step_size(variables, features(values), high)
        fixed_step = tf.stop_gradient(step_size)
        g = lsq_gradient_scale(features(values), high)
        zero_point = quant_ops.scale_gradient(
            learned, g / tf.square(fixed_step), MAX_GRADIENT
        )
        # Zero, with the gradient of an offset: what is inside of the range
        # does not depend on it, what is clipped moves with it.
        offset = fixed_step * (zero_point - tf.stop_gradient(zero_point))
        quantized = quant_ops.quantize(
            values + offset,
            step_size,
            -rounded,
            self.span - rounded,
            learned=True,
        )
        return quantized - offset


def _range_grid(low: float, high: float, span: int) -> tuple[float, float]:
    """Returns step size and zero point of a range that zero is in."""
    step_size = (high - low) / span
    return step_size, float(np.clip(np.rint(-low / step_size), 0, span))


def _squared_error(
    values: np.ndarray, step_size: float, zero_point: float, span: int
) -> float:
    levels = np.rint(values / step_size)
    levels = np.clip(levels, -zero_point, span - zero_point)
    return float(np.square(levels * step_size - values).mean())
