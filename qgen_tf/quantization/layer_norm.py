"""LayerNormalization in whole numbers of 16 bits.

TensorFlow Lite has no operator for it, and 8 bits are too few for means and
variances. In 16 bits the runtime has what it can be made of, see
`export.norms`. The step sizes follow from the grid of the inputs and that of
the outputs, without data.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import ActivationGrid

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

    Attributes:
      input_step_size: of the grid of the inputs.
      input_bits: of that grid, b.
      output_step_size: of the grid of the outputs.
      factor_levels: int8 [channels], 127 with the sign of gamma, or 0.
      factor_step_sizes: float32 [channels]; a factor is gamma times the root
        of the number of channels.
      beta_levels: int64 [channels], in units of `beta_step_size`. They are odd
        where there is a beta: sums are then never in the middle between two
        levels of the outputs, and what factors have been rounded to changes
        none.
      epsilon: what is added to the variance.
    """

    input_step_size: float
    input_bits: int
    output_step_size: float
    factor_levels: np.ndarray
    factor_step_sizes: np.ndarray
    beta_levels: np.ndarray
    epsilon: float

    @property
    def channels(self) -> int:
        """Number of values that are normalized together."""
        return len(self.factor_levels)

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
    def _range(self) -> float:
        return (2**self.input_bits - 1) * self.input_step_size

    @property
    def mean_step_size(self) -> float:
        """Of the weights of a mean, which are 127 of it.

        Kernels round twice, and halves up: that biases products by factors
        that are little less than one.
        """
        return 1.0 / self.channels / 127.0

    @property
    def centered_step_size(self) -> float:
        """Of the mean of the inputs, and of their distance from it.

        Means of no more channels than there are finer levels are exact.
        """
        finer = 2 ** (15 - self.input_bits)
        finer = self.channels * (finer // self.channels) or finer
        return self.input_step_size / finer

    @property
    def power_step_sizes(self) -> tuple[float, ...]:
        """Of the sum of squared distances, for each of its ranges."""
        largest = self.channels * self._range**2 / 4.0 / _MAX
        return tuple(largest / finer for finer in _RANGES)

    @property
    def inverse_step_size(self) -> float:
        """Of the inverse root of that sum, the first try."""
        smallest = max(self._range / 255.0, np.sqrt(self.epsilon))
        return 1.0 / smallest / np.sqrt(self.channels) / _MAX

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
        return np.sqrt(self.epsilon * self.channels) / 127.0 or 1.0

    @property
    def unit_power_step_size(self) -> float:
        """Of the squared length after the first try, at most 2."""
        return _MOST_POWER / _MAX

    @property
    def correction_step_size(self) -> float:
        """Of its inverse root."""
        return _MOST_CORRECTION / _MAX

    @property
    def product_step_size(self) -> float:
        """Of the product of that and the factors."""
        return 127.0 * self.factor_step_sizes.max() * self.correction_step_size

    @property
    def output_16_step_size(self) -> float:
        """Of the outputs in 16 bits, before beta is added."""
        return self.output_step_size / _FINER

    @property
    def beta_step_size(self) -> float:
        """Of the offsets."""
        return self.output_16_step_size / 2.0


@keras.utils.register_keras_serializable(package="qgen_tf")
class DeployedLayerNorm(keras.layers.LayerNormalization):
    """LayerNormalization along the last axis, with the weights of its grid."""

    grid: NormGrid

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized inputs.

        Keras goes through the kernel of BatchNorm here, if epsilon lets it,
        and for that through shapes that only running tells.
        """
        mean = tf.reduce_mean(inputs, axis=-1, keepdims=True)
        centered = inputs - mean
        variance = tf.reduce_mean(centered * centered, axis=-1, keepdims=True)
        normalized = centered * tf.math.rsqrt(variance + self.epsilon)
        return normalized * self.gamma + self.beta


def layer_norm(
    layer: Any,
    output_grid: ActivationGrid,
    input_grid: ActivationGrid,
    tensor: Any,
) -> Any:
    """Calls a `DeployedLayerNorm` on a tensor that is on a grid.

    Args:
      layer: the trained LayerNormalization.
      output_grid: of its outputs.
      input_grid: of its inputs.
      tensor: its inputs.
    """
    channels = tensor.shape[-1]
    gamma = layer.gamma.numpy() if layer.scale else np.ones(channels)
    beta = layer.beta.numpy() if layer.center else np.zeros(channels)
    factors = gamma.astype(np.float64) * np.sqrt(channels)
    largest = np.abs(factors).max() or 1.0
    steps = np.floor(beta / (output_grid.step_size / _FINER))
    levels = 2.0 * steps + 1.0 if layer.center else np.zeros(channels)
    grid = NormGrid(
        input_step_size=input_grid.step_size,
        input_bits=input_grid.num_bits,
        output_step_size=output_grid.step_size,
        factor_levels=(127 * np.sign(factors)).astype(np.int8),
        factor_step_sizes=(
            np.where(factors == 0.0, largest, np.abs(factors)) / 127.0
        ).astype(np.float32),
        beta_levels=np.clip(levels, -(2.0**31), 2.0**31).astype(np.int64),
        epsilon=float(layer.epsilon),
    )
    deployed = DeployedLayerNorm(epsilon=layer.epsilon, name=layer.name)
    outputs = deployed(tensor)
    deployed.set_weights([grid.gamma, grid.beta])
    deployed.grid = grid
    return outputs
