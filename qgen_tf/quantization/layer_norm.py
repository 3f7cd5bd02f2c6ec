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
_FINER = 128.0
# The runtime has 1 / sqrt as a table of its arguments at even distances, which
# is right from some hundred levels on. So the variance is taken in several
# ranges, each this much smaller than the one before.
_RANGES = (1.0, 16.0, 256.0)


@dataclasses.dataclass(frozen=True)
class NormGrid:
    """The integers of a LayerNormalization between two grids.

    With the range R of the inputs, 2^b - 1 steps: the distance from their mean
    is at most R, their variance at most R^2 / 4 (half of them at either end).
    Nothing saturates but the inverse of a standard deviation below R / 255.

    Attributes:
      input_step_size: of the grid of the inputs.
      input_bits: of that grid, b.
      output_step_size: of the grid of the outputs.
      factor_levels: int8 [channels], 127 with the sign of gamma, or 0.
      factor_step_sizes: float32 [channels]; a factor is gamma times the root
        of the number of channels.
      beta_levels: int64 [channels], in units of `output_16_step_size`.
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
        return (self.beta_levels * self.output_16_step_size).astype(np.float32)

    @property
    def _range(self) -> float:
        return (2**self.input_bits - 1) * self.input_step_size

    @property
    def centered_step_size(self) -> float:
        """Of the mean of the inputs, and of their distance from it."""
        return self.input_step_size / 2 ** (15 - self.input_bits)

    @property
    def power_step_sizes(self) -> tuple[float, ...]:
        """Of the sum of squared distances, for each of its ranges."""
        largest = self.channels * self._range**2 / 4.0 / _MAX
        return tuple(largest / finer for finer in _RANGES)

    @property
    def epsilon_levels(self) -> tuple[int, ...]:
        """What is added to that sum, in its steps."""
        total = self.channels * self.epsilon
        return tuple(
            int(min(np.rint(total / step), _MAX))
            for step in self.power_step_sizes
        )

    @property
    def inverse_step_size(self) -> float:
        """Of the inverse root of that sum."""
        return 255.0 / self._range / np.sqrt(self.channels) / _MAX

    @property
    def product_step_size(self) -> float:
        """Of the product of the inverse root and the factors."""
        return 127.0 * self.factor_step_sizes.max() * self.inverse_step_size

    @property
    def output_16_step_size(self) -> float:
        """Of the outputs in 16 bits, and of what is added to get them."""
        return self.output_step_size / _FINER


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
    levels = np.rint(beta / (output_grid.step_size / _FINER))
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
