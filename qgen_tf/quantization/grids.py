"""The fixed grids on which a deployed network computes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import quant_ops


@keras.utils.register_keras_serializable(package="qgen_tf")
class ActivationQuantizer(keras.layers.Layer):
    """Rounds activations to a fixed grid; its step size does not train.

    Attributes:
      step_size: bin width, a positive float.
      num_bits: 2..8.
      signed: whether the levels are on both sides of zero.
      low: smallest level.
      high: largest level.
    """

    def __init__(
        self, step_size: float, num_bits: int, signed: bool, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.step_size = float(step_size)
        self.num_bits = num_bits
        self.signed = signed
        self.low, self.high = quant_ops.level_range(
            num_bits, signed=signed, narrow=False
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs on the grid, with straight-through gradients."""
        step_size = tf.constant(self.step_size, inputs.dtype)
        return quant_ops.quantize(inputs, step_size, self.low, self.high)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "step_size": self.step_size,
            "num_bits": self.num_bits,
            "signed": self.signed,
        }


@dataclasses.dataclass(frozen=True)
class WeightGrid:
    """A weight of the deployed network as integers.

    Attributes:
      levels: int8 array of the shape of the weight.
      step_size: float32, positive; a scalar, or an array that broadcasts
        against `levels`. The weight is `levels * step_size`, to the bit.
      num_bits: bits that the levels need.
      latent: float32; the trained weight before it was rounded, after
        BatchNorm was folded into it. `latent - values` is the quantization
        noise.
      bias_levels: int32, one for each output channel, in units of
        `step_size * input_step_size`; None if the inputs are float.
    """

    levels: np.ndarray
    step_size: np.ndarray
    num_bits: int
    latent: np.ndarray
    bias_levels: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """The weight in float32."""
        return self.levels.astype(np.float32) * self.step_size


def weight_grid(
    latent: np.ndarray, step_size: np.ndarray, num_bits: int
) -> WeightGrid:
    """Rounds a weight to its grid, as a weight quantizer does in training.

    Args:
      latent: float32 weight.
      step_size: float32, positive, broadcasts against `latent`.
      num_bits: 2..8.
    """
    low, high = quant_ops.level_range(num_bits, signed=True, narrow=True)
    levels = np.rint(np.clip(latent / step_size, low, high)).astype(np.int8)
    return WeightGrid(levels, np.asarray(step_size), num_bits, latent)


def scaled(grid: WeightGrid, factor: np.ndarray) -> WeightGrid:
    """Multiplies a weight by a factor; the grid takes it over exactly.

    A negative factor flips the sign of the levels; a factor of zero makes all
    of them zero and keeps the step size, which must be positive.

    Args:
      grid: without bias.
      factor: float32, broadcasts against the levels.
    """
    magnitude = np.where(factor == 0.0, np.float32(1.0), np.abs(factor))
    return dataclasses.replace(
        grid,
        levels=(grid.levels * np.sign(factor)).astype(np.int8),
        step_size=grid.step_size * magnitude,
        latent=grid.latent * factor,
    )


def round_bias(bias: np.ndarray, step_size: np.ndarray) -> np.ndarray:
    """Returns a bias in whole steps, as int32.

    Args:
      bias: float32 [channels].
      step_size: float64 [channels], input step size times weight step size.
    """
    limit = np.iinfo(np.int32).max
    levels = np.rint(bias.astype(np.float64) / step_size)
    return np.clip(levels, -limit, limit).astype(np.int32)
