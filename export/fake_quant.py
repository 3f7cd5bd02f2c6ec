"""Tells the TensorFlow Lite converter the grid of an activation, as literals.

The converter reads the range of a tensor from a fake-quantization operation
with constant limits. All of them here have 8 bits: it knows no activations of
fewer.
"""

from __future__ import annotations

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import ActivationGrid, WeightGrid


class FakeQuantActivation(keras.layers.Layer):
    """An activation grid as the converter reads it.

    Below the lowest level int8 saturates as well if the grid has 8 bits; one
    of fewer bits is cut there, unless a ReLU has cut the values already.
    """

    def __init__(self, grid: ActivationGrid, *, after_relu: bool):
        super().__init__(name=grid.name)
        step = grid.step_size
        self._high = (127 - grid.int8_zero_point) * step
        self._low = (-128 - grid.int8_zero_point) * step
        self._cut = None
        if grid.num_bits < 8 and not (after_relu and grid.low == 0):
            self._cut = grid.low * step

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs on the grid."""
        if self._cut == 0.0:
            inputs = tf.nn.relu(inputs)  # fused into the operator before it
        elif self._cut is not None:
            inputs = tf.maximum(inputs, self._cut)
        return tf.quantization.fake_quant_with_min_max_args(
            inputs, self._low, self._high
        )


class FakeQuantConstant(keras.layers.Layer):
    """A constant that is added, with its grid as the converter reads it."""

    def __init__(self, grid: WeightGrid, *, name: str):
        super().__init__(name=name)
        self._values = grid.values
        self._low = -128.0 * float(grid.step_size)
        self._high = 127.0 * float(grid.step_size)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the sum."""
        return inputs + tf.quantization.fake_quant_with_min_max_args(
            self._values, self._low, self._high
        )
