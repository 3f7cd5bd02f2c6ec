"""Layers with weights, in the operations that become one integer operator.

The converter lays out the operators; `export.weights` writes their integers
into the file afterwards. The converter need not know, then, about a step size
for each channel, which it takes in some operators only, or about 4 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization.affine import ChannelAffine
from qgen_tf.quantization.layer_norm import DeployedLayerNorm

layers = keras.layers
Operation: TypeAlias = Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]

_INT8_MAX = 127


class PlaceholderLinear(keras.layers.Layer):
    """A layer whose integers, or operators, are written later.

    The step size of its weight is the number of the layer, by which its
    operator is found in the file; no two operators can share a weight.
    """

    def __init__(
        self, layer: keras.layers.Layer, shape: tuple[int, ...], number: int
    ):
        """Copies a layer.

        Args:
          layer: of a deployed network.
          shape: of its weight.
          number: of the layer in the file, from 1.

        Raises:
          ExportError: the runtime has no such operator.
        """
        if _is_dilated_transpose(layer):
            raise errors.ExportError(
                f"layer {layer.name!r}: TensorFlow Lite has no transposed "
                "convolution with a dilation rate; set it to 1."
            )
        super().__init__(name=layer.name)
        self._layer = layer
        self._shape = shape
        self._number = number

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies the layer with placeholders for weight and bias."""
        flat = _flat(type(self._layer), inputs)
        operation = _OPERATIONS[type(self._layer)]
        outputs = operation(self._layer, flat, self._placeholder())
        # not of zeros, which the converter leaves out
        outputs += np.full(outputs.shape[-1], self._number, np.float32)
        outputs = getattr(self._layer, "activation", tf.identity)(outputs)
        if flat is inputs:
            return outputs
        return tf.reshape(outputs, (-1, *inputs.shape[1:-1], outputs.shape[-1]))

    def _placeholder(self) -> tf.Tensor:
        limit = float(_INT8_MAX * self._number)
        return tf.quantization.fake_quant_with_min_max_args(
            np.full(self._shape, limit, np.float32),
            -limit,
            limit,
            narrow_range=True,
        )


def _is_dilated_transpose(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layers.Conv2DTranspose) and (
        max(layer.dilation_rate) > 1
    )


def _flat(kind: type, inputs: tf.Tensor) -> tf.Tensor:
    """Gives the inputs the rank that the operator has."""
    space = _SPACES.get(kind)
    # a norm has one axis of tokens, whatever they are laid out in
    fits = inputs.shape.rank == len(space or ()) + 2
    if space is None or (fits and kind is not DeployedLayerNorm):
        return inputs
    return tf.reshape(inputs, (-1, *space, inputs.shape[-1]))


def _conv(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(
        inputs,
        kernel,
        layer.strides,
        layer.padding.upper(),
        dilations=layer.dilation_rate,
    )


def _depthwise(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.DepthwiseConv2dNative(
        input=inputs,
        filter=kernel,
        strides=(1, *layer.strides, 1),
        padding=layer.padding.upper(),
        dilations=(1, *layer.dilation_rate, 1),
    )


def _transposed(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    shape = layer.compute_output_shape(inputs.shape)[1:]
    return tf.nn.conv2d_transpose(
        inputs,
        kernel,
        tf.stack([tf.shape(inputs)[0], *shape]),
        layer.strides,
        layer.padding.upper(),
    )


def _dense(_: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.matmul(inputs, kernel)


def _affine(_: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.DepthwiseConv2dNative(
        input=inputs,
        filter=tf.reshape(kernel, (1, 1, -1, 1)),
        strides=(1, 1, 1, 1),
        padding="VALID",
    )


_OPERATIONS: dict[type, Operation] = {
    layers.Conv2D: _conv,
    layers.Conv2DTranspose: _transposed,
    layers.DepthwiseConv2D: _depthwise,
    layers.Dense: _dense,
    ChannelAffine: _affine,
    DeployedLayerNorm: _affine,
}

# axes that an operator has between the batch and the channels
_SPACES = {layers.Dense: (), ChannelAffine: (1, 1), DeployedLayerNorm: (1, 1)}
