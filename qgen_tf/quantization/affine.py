"""A factor and an offset a channel: what BatchNorm is after training."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import WeightGrid, affine_grid, with_bias

layers = keras.layers


@keras.utils.register_keras_serializable(package="qgen_tf")
class ChannelAffine(keras.layers.Layer):
    """Computes `x * kernel + bias` along the last axis.

    Attributes:
      kernel: float32 [channels].
      bias: float32 [channels].
      grid: the integers of both.
    """

    grid: WeightGrid

    def build(self, input_shape) -> None:
        """Creates the weights, those of the identity."""
        shape = input_shape[-1:]
        self.kernel = self.add_weight("kernel", shape, initializer="ones")
        self.bias = self.add_weight("bias", shape, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the scaled and shifted inputs."""
        return inputs * self.kernel + self.bias


def channel_affine(
    inputs: Any,
    factor: np.ndarray,
    offset: np.ndarray,
    *,
    input_step_size: float,
    name: str,
) -> Any:
    """Calls a `ChannelAffine` on a tensor that is on a grid."""
    grid = with_bias(affine_grid(factor), offset, input_step_size)
    layer = ChannelAffine(name=name)
    outputs = layer(inputs)
    layer.set_weights([grid.values, grid.bias(input_step_size)])
    layer.grid = grid
    return outputs


def coefficients(
    layer: keras.layers.Layer, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns factor and offset, float32 [channels], of an affine layer.

    Args:
      layer: BatchNormalization (as it is in inference), Normalization or
        Rescaling, on inputs with channels last.
      channels: of the inputs.
    """
    if isinstance(layer, layers.BatchNormalization):
        factor, offset = _of_batch_norm(layer)
    elif isinstance(layer, layers.Normalization):
        factor = 1.0 / np.maximum(np.sqrt(layer.variance), 1e-7)
        offset = -np.asarray(layer.mean) * factor
    else:
        factor, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    shape = (channels,)
    return (
        np.broadcast_to(np.squeeze(factor), shape).astype(np.float32),
        np.broadcast_to(np.squeeze(offset), shape).astype(np.float32),
    )


def _of_batch_norm(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    variance = norm.moving_variance.numpy()
    factor = 1.0 / np.sqrt(variance + np.float32(norm.epsilon))
    if norm.scale:
        factor = factor * norm.gamma.numpy()
    offset = -norm.moving_mean.numpy() * factor
    if norm.center:
        offset = offset + norm.beta.numpy()
    return factor, offset
