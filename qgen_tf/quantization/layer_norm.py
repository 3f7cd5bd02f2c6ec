"""LayerNormalization of a deployed network, in the weights of its grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import ActivationGrid
from qgen_tf.quantization.norm_grid import NormGrid


@keras.utils.register_keras_serializable(package="qgen_tf")
class DeployedLayerNorm(keras.layers.LayerNormalization):
    """LayerNormalization along the last axis, with the weights of its grid."""

    grid: NormGrid

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized inputs.

        Keras goes through the kernel of BatchNorm here, if epsilon lets it,
        and for that through shapes that only running tells.
        """
        mean = tf.reduce_mean(inputs, axis=-1, keepdims=True)
        centered = inputs - mean
        variance = tf.reduce_mean(centered * centered, axis=-1, keepdims=True)
        normalized = centered * tf.math.rsqrt(variance + self.epsilon)
        return normalized * self.gamma + self.beta


def layer_norm(
    layer: Any,
    output_grid: ActivationGrid,
    input_grid: ActivationGrid,
    tensor: Any,
) -> Any:
    """Calls a `DeployedLayerNorm` on a tensor that is on a grid.

    Args:
      layer: the trained LayerNormalization.
      output_grid: of its outputs.
      input_grid: of its inputs.
      tensor: its inputs.
    """
    channels = tensor.shape[-1]
    grid = NormGrid.of(
        layer.gamma.numpy() if layer.scale else np.ones(channels, np.float32),
        layer.beta.numpy() if layer.center else None,
        input_step_size=input_grid.step_size,
        input_levels=2**input_grid.num_bits,
        output_step_size=output_grid.step_size,
        epsilon=float(layer.epsilon),
    ).numpy()
    deployed = DeployedLayerNorm(epsilon=layer.epsilon, name=layer.name)
    outputs = deployed(tensor)
    deployed.set_weights([grid.gamma, grid.beta])
    deployed.grid = grid
    return outputs
