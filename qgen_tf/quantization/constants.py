"""Constants that are added: embeddings of positions and their differences."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import WeightGrid


@keras.utils.register_keras_serializable(package="qgen_tf")
class AddedConstant(keras.layers.Layer):
    """Adds the same values to every example.

    Attributes:
      constant: float32, of the shape of an example, or one that broadcasts.
      grid: its integers.
    """

    grid: WeightGrid

    def __init__(self, shape: tuple[int, ...], **kwargs: Any):
        """Starts with zeros.

        Args:
          shape: of the constant.
          **kwargs: of a layer.
        """
        super().__init__(**kwargs)
        self._shape = tuple(shape)
        self.constant = self.add_weight("constant", shape, initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the sum."""
        return inputs + self.constant

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "shape": self._shape}


def added_constant(tensor: Any, grid: WeightGrid, *, name: str) -> Any:
    """Calls an `AddedConstant` on a tensor that is on a grid."""
    layer = AddedConstant(grid.levels.shape, name=name)
    layer.set_weights([grid.values])
    layer.grid = grid
    return layer(tensor)
