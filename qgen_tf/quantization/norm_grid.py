"""The whole numbers of a LayerNormalization between two grids.

TensorFlow Lite has no operator for it, and 8 bits are too few for means and
variances. In 16 bits the runtime has what it can be made of, see
`export.norms`. The step sizes follow from the grid of the inputs and that of
the outputs, without data.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.quantization.fixed_point import float64

_MAX = 32767.0
# levels of 16 bits in a step of the outputs
_FINER = 128
# The runtime has 1 / sqrt as a table of its arguments at even distances, which
# is right to some percent from its second entry on, the level 128. So the
# variance is taken in two ranges, the second one this much smaller.
_RANGES = (1.0, 128.0)
# A length of one is right to so much at the first try, and its square and its
# inverse have room for epsilon and for lengths that are less.
_MOST_LENGTH = 1.0 + 1.0 / 32.0
_MOST_POWER = 2.25
_MOST_CORRECTION = 1.4


@dataclasses.dataclass(frozen=True)
class NormGrid:
    """The integers of a LayerNormalization between two grids.

    What is left of the inputs without their mean is divided by its length, the
    root of the sum of squares, in two tries. The first one has the inverse of
    the length from a rough table, in whole numbers that are small where the
    variance is large: it is right to some percent. The second one corrects all
    of that, since the length is then near one, where the table is fine.

    With the range R of the inputs, 2^b - 1 steps: the distance from their mean
    is at most R, their variance at most R^2 / 4 (half of them at either end).
    Nothing saturates but the inverse of a standard deviation below R / 255 and
    below the root of epsilon.

    All are numbers and arrays of NumPy, or else tensors.

    Attributes:
      input_step_size: of the grid of the inputs.
      input_levels: how many that grid has, 2^b.
      output_step_size: of the grid of the outputs.
      factor_levels: int8 [channels], 127 with the sign of gamma, or 0.
      factor_step_sizes: float32 [channels]; a factor is gamma times the root
        of the number of channels.
      beta_levels: int64 [channels], in units of `beta_step_size`. They are odd
        where there is a beta: sums are then never in the middle between two
        levels of the outputs, and what factors have been rounded to changes
        none.
      epsilon: what is added to the variance, a number.
    """

    input_step_size: Any
    input_levels: Any
    output_step_size: Any
    factor_levels: Any
    factor_step_sizes: Any
    beta_levels: Any
    epsilon: float

    @classmethod
    def of(
        cls,
        gamma: Any,
        beta: Any,
        *,
        input_step_size: Any,
        input_levels: Any,
        output_step_size: Any,
        epsilon: float,
    ) -> NormGrid:
        """Returns the one of a layer, of tensors.

        Args:
          gamma: what the layer multiplies by, float32 [channels].
          beta: what it adds, likewise, or None.
          input_step_size: of the grid of the inputs.
          input_levels: how many that grid has.
          output_step_size: of the grid of the outputs.
          epsilon: what it adds to the variance.
        """
        factors = float64(gamma) * math.sqrt(gamma.shape[0])
        largest = tf.reduce_max(tf.abs(factors))
        largest = tf.where(largest > 0.0, largest, tf.ones_like(largest))
        steps = tf.where(factors == 0.0, largest, tf.abs(factors)) / 127.0
        levels = tf.zeros_like(factors)
        if beta is not None:
            unit = float64(output_step_size) / _FINER
            levels = 2.0 * tf.floor(float64(beta) / unit) + 1.0
        levels = tf.clip_by_value(levels, -(2.0**31), 2.0**31)
        return cls(
            float64(input_step_size),
            float64(input_levels),
            float64(output_step_size),
            tf.cast(127.0 * tf.sign(factors), tf.int8),
            tf.cast(steps, tf.float32),
            tf.cast(levels, tf.int64),
            epsilon,
        )

    def numpy(self) -> NormGrid:
        """Returns the same of tensors that have values, in NumPy."""
        values = {
            field.name: np.asarray(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }
        numbers: dict[str, Any] = {
            name: value.item() if value.ndim == 0 else value
            for name, value in values.items()
        }
        return NormGrid(**numbers)

    @property
    def tensors(self) -> dict[str, Any]:
        """All attributes but epsilon, as tensors."""
        return {
            "input_step_size": float64(self.input_step_size),
            "input_levels": float64(self.input_levels),
            "output_step_size": float64(self.output_step_size),
            "factor_levels": tf.convert_to_tensor(self.factor_levels, tf.int8),
            "factor_step_sizes": tf.convert_to_tensor(
                self.factor_step_sizes, tf.float32
            ),
            "beta_levels": tf.convert_to_tensor(self.beta_levels, tf.int64),
        }

    @property
    def channels(self) -> int:
        """Number of values that are normalized together."""
        return self.factor_levels.shape[0]

    @property
    def gamma(self) -> np.ndarray:
        """What normalized inputs are multiplied by, float32 [channels]."""
        factors = self.factor_levels * self.factor_step_sizes
        return (factors / np.sqrt(self.channels)).astype(np.float32)

    @property
    def beta(self) -> np.ndarray:
        """The offsets, float32 [channels]."""
        return (self.beta_levels * self.beta_step_size).astype(np.float32)

    @property
    def _range(self) -> Any:
        return (self.input_levels - 1) * self.input_step_size

    @property
    def mean_step_size(self) -> float:
        """Of the weights of a mean, which are 127 of it.

        Kernels round twice, and halves up: that biases products by factors
        that are little less than one.
        """
        return 1.0 / self.channels / 127.0

    @property
    def finer_steps(self) -> Any:
        """How many of `centered_step_size` are a step of the inputs.

        Means of no more channels than there are finer steps are exact.
        """
        most = 2**15 // self.input_levels
        whole = self.channels * (most // self.channels)
        return _larger(whole, most % self.channels)

    @property
    def centered_step_size(self) -> Any:
        """Of the mean of the inputs, and of their distance from it."""
        return self.input_step_size / self.finer_steps

    @property
    def power_step_sizes(self) -> tuple[Any, ...]:
        """Of the sum of squared distances, for each of its ranges."""
        largest = self._range * self._range * (self.channels / 4.0 / _MAX)
        return tuple(largest / finer for finer in _RANGES)

    @property
    def inverse_step_size(self) -> Any:
        """Of the inverse root of that sum, the first try."""
        smallest = _larger(self._range / 255.0, math.sqrt(self.epsilon))
        return 1.0 / (smallest * (math.sqrt(self.channels) * _MAX))

    @property
    def unit_step_size(self) -> float:
        """Of distances divided by the length, and of that of epsilon."""
        return _MOST_LENGTH / _MAX

    @property
    def epsilon_levels(self) -> np.ndarray:
        """What the inverse is multiplied by for the length of epsilon, int8."""
        return np.array([127 if self.epsilon else 0], np.int8)

    @property
    def epsilon_step_size(self) -> float:
        """Of that factor."""
        return math.sqrt(self.epsilon * self.channels) / 127.0 or 1.0

    @property
    def unit_power_step_size(self) -> float:
        """Of the squared length after the first try, at most 2."""
        return _MOST_POWER / _MAX

    @property
    def correction_step_size(self) -> float:
        """Of its inverse root."""
        return _MOST_CORRECTION / _MAX

    @property
    def product_step_size(self) -> Any:
        """Of the product of that and the factors."""
        return _largest(self.factor_step_sizes) * (
            127.0 * self.correction_step_size
        )

    @property
    def output_16_step_size(self) -> Any:
        """Of the outputs in 16 bits, before beta is added."""
        return self.output_step_size / _FINER

    @property
    def beta_step_size(self) -> Any:
        """Of the offsets."""
        return self.output_16_step_size / 2.0


def _larger(a: Any, b: Any) -> Any:
    return tf.maximum(a, b) if tf.is_tensor(a) else max(a, b)


def _largest(values: Any) -> Any:
    if tf.is_tensor(values):
        return tf.reduce_max(tf.cast(values, tf.float64))
    return float(values.max())
