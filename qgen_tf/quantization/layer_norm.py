"""LayerNormalization in whole numbers of 16 bits.

TensorFlow Lite has no operator for it, and 8 bits are too few for means and
variances. In 16 bits the runtime has what it is made of: QUANTIZE, MEAN, SUB,
MUL, MEAN, ADD, RSQRT, MUL, MUL, ADD, QUANTIZE. The step sizes follow from the
grid of the inputs and that of the outputs, without data.
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
      gamma_levels: int16 [channels].
      beta_levels: int16 [channels].
      gamma_step_size: of `gamma_levels`.
      epsilon: what is added to the variance.
    """

    input_step_size: float
    input_bits: int
    output_step_size: float
    gamma_levels: np.ndarray
    beta_levels: np.ndarray
    gamma_step_size: float
    epsilon: float

    @property
    def gamma(self) -> np.ndarray:
        """The factors, float32 [channels]."""
        return (self.gamma_levels * self.gamma_step_size).astype(np.float32)

    @property
    def beta(self) -> np.ndarray:
        """The offsets, float32 [channels]."""
        return (self.beta_levels * self.shifted_step_size).astype(np.float32)

    @property
    def _range(self) -> float:
        return (2**self.input_bits - 1) * self.input_step_size

    @property
    def centered_step_size(self) -> float:
        """Of the inputs in 16 bits, their mean and their distance from it."""
        return self.input_step_size / 2 ** (15 - self.input_bits)

    @property
    def square_step_size(self) -> float:
        """Of the squares of the distances."""
        return self._range**2 / _MAX

    @property
    def variance_step_size(self) -> float:
        """Of their mean, and of what is added to it."""
        return self._range**2 / 4.0 / _MAX

    @property
    def epsilon_level(self) -> int:
        """What is added to the variance, in its steps."""
        return int(min(np.rint(self.epsilon / self.variance_step_size), _MAX))

    @property
    def inverse_step_size(self) -> float:
        """Of the inverse standard deviation."""
        return 255.0 / self._range / _MAX

    @property
    def normalized_step_size(self) -> float:
        """Of the normalized inputs: none exceeds the root of their number."""
        return float(np.sqrt(len(self.gamma_levels))) / _MAX

    @property
    def shifted_step_size(self) -> float:
        """Of the scaled inputs, `beta`, and the outputs in 16 bits."""
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
    largest = float(np.abs(gamma).max()) or 1.0
    gamma_step_size = float(np.float32(largest / _MAX))
    grid = NormGrid(
        input_step_size=input_grid.step_size,
        input_bits=input_grid.num_bits,
        output_step_size=output_grid.step_size,
        gamma_levels=_levels(gamma, gamma_step_size),
        beta_levels=_levels(beta, output_grid.step_size / _FINER),
        gamma_step_size=gamma_step_size,
        epsilon=float(layer.epsilon),
    )
    deployed = DeployedLayerNorm(epsilon=layer.epsilon, name=layer.name)
    outputs = deployed(tensor)
    deployed.set_weights([grid.gamma, grid.beta])
    deployed.grid = grid
    return outputs


def _levels(values: np.ndarray, step_size: float) -> np.ndarray:
    levels = np.clip(np.rint(values / step_size), -_MAX, _MAX)
    return levels.astype(np.int16)
