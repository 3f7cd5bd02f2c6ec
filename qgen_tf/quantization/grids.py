"""The fixed grids on which a deployed network computes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import quant_ops
from qgen_tf.quantization.quantize_registry import Role, role

# steps of a bias; as much again is left to the sum of products
_BIAS_LIMIT = 2.0**30


@keras.utils.register_keras_serializable(package="qgen_tf")
class ActivationGrid(keras.layers.Layer):
    """Rounds activations to a fixed grid; its step size does not train.

    Attributes:
      step_size: bin width, a positive float.
      num_bits: 2..8.
      zero_point: number of levels below zero, in 0..2^b - 1.
      low: smallest level, `-zero_point`.
      high: largest level, `2^b - 1 - zero_point`.
    """

    def __init__(
        self, step_size: float, num_bits: int, zero_point: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.step_size = float(step_size)
        self.num_bits = num_bits
        self.zero_point = zero_point
        self.low = -zero_point
        self.high = 2**num_bits - 1 - zero_point

    @property
    def int8_zero_point(self) -> int:
        """The level 0 in int8, whose highest value is the highest level.

        int8 then saturates at the top as the grid does.
        """
        return 127 - self.high

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
            "zero_point": self.zero_point,
        }


@keras.utils.register_keras_serializable(package="qgen_tf")
class AverageGrid(ActivationGrid):
    """The grid that neighbours are on, for their average.

    Halves are frequent there and must be rounded as the integer runtime does:
    pooling rounds them away from the zero of int8, interpolation up.

    Attributes:
      rounds_up: whether halves are rounded up.
    """

    def __init__(
        self,
        step_size: float,
        num_bits: int,
        zero_point: int,
        *,
        rounds_up: bool,
        **kwargs: Any,
    ):
        super().__init__(step_size, num_bits, zero_point, **kwargs)
        self.rounds_up = rounds_up

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs on the grid, with straight-through gradients."""
        direction = 1.0
        if not self.rounds_up:
            zero = self.int8_zero_point * self.step_size
            direction = tf.sign(inputs + zero)
        # far more than float32 errs, far less than averages are apart
        return super().call(inputs + 1e-3 * self.step_size * direction)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rounds_up": self.rounds_up}


def grid_of(tensor: Any) -> ActivationGrid | None:
    """Returns the grid that a symbolic tensor of a network is on, if any."""
    layer = tensor.node.layer
    if isinstance(layer, ActivationGrid):
        return layer
    return grid_of(layer.input) if role(layer) is Role.SHAPE else None


@dataclasses.dataclass(frozen=True)
class WeightGrid:
    """A weight of the deployed network as integers.

    Attributes:
      levels: int8 array of the shape of the weight.
      step_size: float32, positive; a scalar, or an array that broadcasts
        against `levels`. The weight is `levels * step_size`, to the bit.
      num_bits: b; a channel has at most 2^b different levels.
      latent: float32; the trained weight before it was rounded, after
        BatchNorm was folded into it. `latent - values` is the quantization
        noise.
      stride: distance of two neighbouring levels: 1, or 2 where all levels
        are odd. The bin width is `stride * step_size`.
      bias_levels: int32, one for each output channel, in units of
        `step_size * input_step_size`; None if the inputs are float.
    """

    levels: np.ndarray
    step_size: np.ndarray
    num_bits: int
    latent: np.ndarray
    stride: int = 1
    bias_levels: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """The weight in float32."""
        return self.levels.astype(np.float32) * self.step_size

    def bias(self, input_step_size: float) -> np.ndarray:
        """Returns the rounded bias in float32, [channels]."""
        steps = self.bias_step_sizes(input_step_size)
        return (self.bias_levels * steps).astype(np.float32)

    def bias_step_sizes(self, input_step_size: float) -> np.ndarray:
        """Returns the steps of the bias in float64, [1] or [channels]."""
        return self.step_size.reshape(-1).astype(np.float64) * input_step_size

    @property
    def bin_width(self) -> np.ndarray:
        """Distance of two neighbouring values, shaped like `step_size`."""
        return self.stride * self.step_size


def affine_grid(factor: np.ndarray) -> WeightGrid:
    """Returns the grid of a factor a channel, which it holds exactly.

    Args:
      factor: float32 [channels]. Each is the level 127, with its sign, so that
        a bias in its units is fine-grained.
    """
    step_size = np.abs(factor) / np.float32(127.0)
    step_size = np.where(factor == 0.0, np.float32(1.0), step_size)
    return WeightGrid(
        levels=(127 * np.sign(factor)).astype(np.int8),
        step_size=step_size,
        num_bits=8,
        latent=factor,
    )


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


def with_bias(
    grid: WeightGrid, bias: np.ndarray, input_step_size: float
) -> WeightGrid:
    """Adds a bias, rounded to whole steps as the integer runtime has it.

    A bias of more than 2^30 steps could make the runtime's sums of 32 bits
    overflow. Its channel is as good as constant (BatchNorm has all but
    switched it off): the step size grows until the bias fits, and the levels
    are rounded to it.

    Args:
      grid: its steps are one, or one for each output channel.
      bias: float32 [channels].
      input_step_size: of the grid of the inputs.
    """
    steps = grid.bias_step_sizes(input_step_size)
    growth = np.abs(bias.astype(np.float64)) / steps / _BIAS_LIMIT
    growth = np.maximum(1.0, growth)
    if grid.step_size.size == 1:
        growth = growth.max()
    if growth.max() > 1.0:
        grid = _coarser(grid, growth.reshape(grid.step_size.shape))
    levels = np.rint(bias / grid.bias_step_sizes(input_step_size))
    return dataclasses.replace(grid, bias_levels=levels.astype(np.int32))


def _coarser(grid: WeightGrid, growth: np.ndarray) -> WeightGrid:
    step_size = (grid.step_size * growth).astype(np.float32)
    levels = np.rint(grid.levels * (grid.step_size / step_size))
    return dataclasses.replace(
        grid, levels=levels.astype(np.int8), step_size=step_size
    )
