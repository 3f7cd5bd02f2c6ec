"""LayerNormalization as the runtime computes it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.norm_arithmetic import normalized
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
        self._is_plain = is_plain

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized inputs."""
        return normalized(inputs, self._grid, is_plain=self._is_plain)
