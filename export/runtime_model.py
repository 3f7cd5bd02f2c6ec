"""A deployed network in the arithmetic of the integer runtime.

The deployed network computes in float32; where a sum of products lies within a
float error of the middle between two levels, it may end on the other one than
the runtime. Here sums are whole numbers, and go to the output's grid as the
kernels have it:

* XNNPACK multiplies by a float32 factor and rounds, halves to even;
* the reference kernels multiply by a 31-bit fixed-point number and round
  twice, first to the steps of the sum, then to those of the output (gemmlowp;
  Jacob et al. 2018, section 2.2). Where both steps are of like size, as at few
  bits, that changes many values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.grids import ActivationGrid, grid_of
from qgen_tf.quantization.inference import InferenceModel
from qgen_tf.quantization.quantize_registry import Role, role
from qgen_tf.quantization.runtime_layers import copied

layers = keras.layers
Layer: TypeAlias = keras.layers.Layer


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
          weight_steps: float32 [channels] or [1], of the weights.
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


class FixedPointGrid(SumGrid):
    """The same for the reference kernels, with two roundings."""

    def _set_ratio(
        self,
        input_step: np.float32,
        weight_steps: np.ndarray,
        output_step: np.float32,
        count: int,
    ) -> None:
        ratio = weight_steps.astype(np.float64) * input_step / output_step
        fraction, exponent = np.frexp(ratio)
        # a mean's multiplier is divided, at a power of two that keeps digits
        digits = int(np.log2(count))
        multiplier = np.floor(np.rint(fraction * 2.0**31) * 2.0**digits / count)
        exponent = exponent - digits
        self._multiplier = multiplier * 2.0 ** (np.maximum(exponent, 0) - 31.0)
        self._divisor = 2.0 ** np.maximum(-exponent, 0)

    def _rounded(self, sums: tf.Tensor) -> tf.Tensor:
        # the first rounding takes halves up, the second away from zero
        products = tf.floor(sums * self._multiplier + 0.5)
        steps = tf.floor(tf.abs(products) / self._divisor + 0.5)
        return tf.sign(products) * steps


# of TensorFlow Lite's own kernels, the optimized ones differ from both
_GRIDS = {
    "xnnpack": SumGrid,
    "builtin": FixedPointGrid,
    "reference": FixedPointGrid,
}


def runtime_model(
    network: InferenceModel, *, kernels: str = "xnnpack"
) -> keras.Model:
    """Returns what the runtime computes, for evaluation only.

    Sums of products and means over all pixels are rounded as the kernels do;
    other operators as in the deployed network, which is right but for ties.

    Args:
      network: a deployed network; it is left as it is.
      kernels: "xnnpack" or "reference". For "builtin" the reference kernels
        are the nearest that is known, and not exact.
    """
    if not network.weight_grids:
        return network.model
    sources = graph.producers(network.model)
    weight_grids = network.weight_grids | network.affine_grids

    def call(layer: Layer, apply: Callable[..., Any]) -> Any:
        if isinstance(layer, layers.InputLayer):
            return apply(lambda images: images)
        copy = functools.partial(copied, layer)
        if type(layer) is not ActivationGrid:
            return apply(copy)
        *relus, source = fused_before(sources, layer)
        limit = getattr(relus[-1], "max_value", None) if relus else None
        input_grid = _input_grid(source)
        weight_steps, count = np.ones(1, np.float32), 1
        if isinstance(source, layers.GlobalAveragePooling2D):
            count = int(np.prod(source.input.shape[1:3]))
        elif source.name in weight_grids:
            weight_steps = weight_grids[source.name].step_size.reshape(-1)
        else:
            return apply(copy)
        if input_grid is None:
            return apply(copy)
        grid = _GRIDS[kernels](
            layer,
            np.float32(input_grid.step_size),
            weight_steps,
            count=count,
            limit=None if limit is None else float(limit),
        )
        return apply(grid)

    return graph.rebuild(network.model, call, name=network.model.name)


def fused_before(
    sources: dict[str, list[Layer]], grid: ActivationGrid
) -> list[Layer]:
    """Returns what one operator computes for a grid, the last layer first.

    Args:
      sources: from `graph.producers`.
      grid: a layer of that network.

    Returns:
      Any number of ReLUs, and what is before them.
    """
    fused = [sources[grid.name][0]]
    while role(fused[-1]) is Role.RELU:
        fused.append(sources[fused[-1].name][0])
    return fused


def _input_grid(layer: Layer) -> ActivationGrid | None:
    """Returns the grid of the only input of a layer, if it has one."""
    if isinstance(layer.input, list):
        return None
    return grid_of(layer.input)
