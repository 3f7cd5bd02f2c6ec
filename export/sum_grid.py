"""The grids behind whole sums, as the runtime's kernels round them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.quantization.fixed_point import Multiplier
from qgen_tf.quantization.grids import ActivationGrid


class SumGrid(ActivationGrid):
    """The grid of XNNPACK's outputs, behind whole sums."""

    def __init__(
        self,
        grid: ActivationGrid,
        input_step: np.float32,
        weight_steps: np.ndarray,
        *,
        count: int = 1,
        limit: float | None = None,
    ):
        """Takes over a grid.

        Args:
          grid: of the output.
          input_step: step size of the inputs of the sums.
          weight_steps: float32 [channels] or [1], of the weights, or of what
            else the inputs are multiplied by.
          count: how many sums a mean is of.
          limit: value at which an activation has cut the outputs, if it has.
        """
        super().__init__(
            grid.step_size, grid.num_bits, grid.zero_point, name=grid.name
        )
        self._steps = weight_steps.astype(np.float64) * input_step / count
        self._limit = limit
        self._set_ratio(
            input_step, weight_steps, np.float32(grid.step_size), count
        )

    def _set_ratio(
        self,
        input_step: np.float32,
        weight_steps: np.ndarray,
        output_step: np.float32,
        count: int,
    ) -> None:
        self._factor = input_step * weight_steps / output_step
        self._factor = self._factor / np.float32(count)

    def _rounded(self, sums: tf.Tensor) -> tf.Tensor:
        """Returns whole sums, float64, in whole steps of the output."""
        products = tf.cast(sums, tf.float32) * self._factor
        return tf.cast(tf.round(products), tf.float64)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs on the grid."""
        sums = tf.round(tf.cast(inputs, tf.float64) / self._steps)
        steps = self._rounded(sums)
        if self._limit is not None:
            highest = np.rint(self._limit / self.step_size)
            steps = tf.where(inputs < self._limit, steps, highest)
        steps = tf.clip_by_value(steps, float(self.low), float(self.high))
        return tf.cast(steps, inputs.dtype) * self.step_size


class MeanGrid(SumGrid):
    """The same for XNNPACK's means.

    It adds up levels as they are in int8, and takes the share of the zero
    point off when both are in steps of the output: rounded to float32 there,
    where values are large.
    """

    def __init__(self, *args: Any, zero_point: int, count: int, **kwargs: Any):
        """Takes over a grid.

        Args:
          *args: see `SumGrid`.
          zero_point: of the inputs in int8.
          count: see `SumGrid`.
          **kwargs: see `SumGrid`.
        """
        super().__init__(*args, count=count, **kwargs)
        self._zero = float(count * zero_point)

    def _rounded(self, sums: tf.Tensor) -> tf.Tensor:
        large = tf.cast(sums + self._zero, tf.float32) * self._factor
        shift = np.float32(self._zero) * self._factor
        return tf.cast(tf.round(large - shift), tf.float64)


class DenseGrid(SumGrid):
    """The same for the reference kernel of dense layers, in float64."""

    def _set_ratio(
        self,
        input_step: np.float32,
        weight_steps: np.ndarray,
        output_step: np.float32,
        count: int,
    ) -> None:
        ratio = weight_steps.astype(np.float64) * input_step / output_step
        self._factor = ratio / count

    def _rounded(self, sums: tf.Tensor) -> tf.Tensor:
        return tf.round(sums * self._factor)


class FixedPointGrid(SumGrid):
    """The same for the runtime's other kernels, with two roundings."""

    def _set_ratio(
        self,
        input_step: np.float32,
        weight_steps: np.ndarray,
        output_step: np.float32,
        count: int,
    ) -> None:
        ratio = weight_steps.astype(np.float64) * input_step / output_step
        self._multiplier = Multiplier.of(ratio).divided(count)

    def _rounded(self, sums: tf.Tensor) -> tf.Tensor:
        steps = self._multiplier(tf.cast(sums, tf.int64))
        return tf.cast(steps, tf.float64)


class UpwardGrid(FixedPointGrid):
    """The same for its optimized matrix multiplications (ruy)."""

    def _rounded(self, sums: tf.Tensor) -> tf.Tensor:
        steps = self._multiplier.upward(tf.cast(sums, tf.int64))
        return tf.cast(steps, tf.float64)
