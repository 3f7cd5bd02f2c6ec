"""LayerNormalization as the runtime computes it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.fixed_point import steps_of
from qgen_tf.quantization.norm_arithmetic import NormArithmetic
from qgen_tf.quantization.norm_grid import NormGrid


class RuntimeNorm(keras.layers.Layer):
    """What a file computes for a LayerNormalization, but its last operator.

    The outputs are in whole steps of 16 bits; the grid behind cuts them off.
    """

    def __init__(self, grid: NormGrid, *, is_plain: bool, **kwargs: Any):
        """Takes the integers of the layer.

        Args:
          grid: of the layer.
          is_plain: whether the reference kernels compute.
          **kwargs: of a layer.
        """
        super().__init__(**kwargs)
        self._grid = grid
        self._arithmetic = NormArithmetic(grid, is_plain=is_plain)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized inputs."""
        steps = self._arithmetic(steps_of(inputs, self._grid.input_step_size))
        return tf.cast(steps, inputs.dtype) * self._grid.output_step_size
