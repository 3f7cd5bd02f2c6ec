"""Layers that tell the TensorFlow Lite converter each grid, as literals.

The converter reads the range of a tensor from a fake-quantization operation
with constant limits. All of them here have 8 bits: the converter stores 4
bits only where the file asks for them and mistreats 2 and 3.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import ActivationGrid, WeightGrid
from qgen_tf.quantization.quantize_registry import WEIGHTS

_INT8_MAX = 127
_INT8_LEVELS = 255


class FakeQuantActivation(keras.layers.Layer):
    """An activation grid whose highest level is the highest of int8.

    int8 then saturates at the top as the trained quantizer does. Below, a
    ReLU has cut the values already; a signed grid of fewer than 8 bits is cut
    by a maximum.
    """

    def __init__(self, grid: ActivationGrid):
        super().__init__(name=grid.name)
        step = grid.step_size
        self._high = grid.high * step
        self._low = (grid.high - _INT8_LEVELS) * step
        self._cut = None
        if grid.low < 0 and grid.num_bits < 8:
            self._cut = grid.low * step

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs on the grid."""
        if self._cut is not None:
            inputs = tf.maximum(inputs, self._cut)
        return tf.quantization.fake_quant_with_min_max_args(
            inputs, self._low, self._high
        )


class FakeQuantWeights(keras.layers.Layer):
    """A copy of a linear layer whose weight is a constant on its grid."""

    def __init__(self, layer: keras.layers.Layer, grid: WeightGrid):
        super().__init__(name=layer.name)
        self._weight = WEIGHTS[type(layer)]
        self._grid = grid
        self._per_axis = self._weight.per_axis or grid.step_size.size > 1
        self._layer = type(layer).from_config(layer.get_config())
        self._layer.build(layer.input_shape)
        self._layer.set_weights(layer.get_weights())

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies the layer with the fake-quantized weight."""
        if self._per_axis and not self._weight.per_axis:
            return self._dense_as_convolution(inputs)
        kernel = self._constant(self._grid.values)
        setattr(self._layer, self._weight.attribute, kernel)
        return self._layer.call(inputs)

    def _dense_as_convolution(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies a dense layer as a 1x1 convolution.

        The converter refuses a dense kernel with a step size for each channel,
        which is what BatchNorm folded into it leaves.
        """
        kernel = self._constant(self._grid.values[None, None])
        features, units = kernel.shape[2:]
        flat = tf.reshape(inputs, (-1, 1, 1, features))
        outputs = tf.nn.conv2d(flat, kernel, 1, "VALID") + self._layer.bias
        return tf.reshape(outputs, (-1, *inputs.shape[1:-1], units))

    def _constant(self, values: np.ndarray) -> tf.Tensor:
        limits = _INT8_MAX * self._grid.step_size
        if not self._per_axis:
            limit = float(limits.reshape(()))
            return tf.quantization.fake_quant_with_min_max_args(
                values, -limit, limit, narrow_range=True
            )
        # The operation takes channels on the last axis; the channels of a
        # depthwise kernel are on two.
        split = values.ndim - len(self._weight.channel_axes)
        channels = values.shape[split:]
        steps = np.broadcast_to(limits, (1,) * split + channels)
        quantized = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            tf.reshape(values, (*values.shape[:split], -1)),
            -steps.reshape(-1),
            steps.reshape(-1),
            narrow_range=True,
        )
        return tf.reshape(quantized, values.shape)
