"""What transformers need besides the layers of Keras.

Every tensor between two layers keeps its batch axis, has at most six axes, and
each layer is one or two operations of the integer runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras

MASK_VALUE = -100.0  # of scores that softmax has to make zero


@keras.utils.register_keras_serializable(package="qgen_tf")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector to each token (ViT, arXiv 2010.11929, eq. 1).

    Tokens [batch, tokens, channels] keep their shape, or get one more token,
    the class token, in front of them.

    Args:
      class_token: whether to add that token.

    Attributes:
      position_embedding: variable [tokens of the output, channels].
      class_token: variable [channels], or None.
    """

    def __init__(self, class_token: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.has_class_token = class_token
        self.class_token: tf.Variable | None = None

    def build(self, input_shape: Any) -> None:
        """Creates the variables for tokens of a known number."""
        _, tokens, channels = input_shape
        self.position_embedding = self.add_weight(
            "position_embedding",
            (tokens + self.has_class_token, channels),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        if self.has_class_token:
            self.class_token = self.add_weight(
                "class_token", (channels,), initializer="zeros"
            )
        super().build(input_shape)

    def constant(self) -> tf.Tensor:
        """Returns what is added to the tokens, a zero in front of them."""
        if self.class_token is None:
            return tf.convert_to_tensor(self.position_embedding)
        token = tf.convert_to_tensor(self.class_token)
        rows = self.position_embedding.shape[0] - 1
        return self.position_embedding + tf.pad(
            token[None], [[0, rows], [0, 0]]
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the tokens in their positions."""
        if self.has_class_token:
            inputs = tf.pad(inputs, [[0, 0], [1, 0], [0, 0]])
        return inputs + self.constant()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "class_token": self.has_class_token}


@keras.utils.register_keras_serializable(package="qgen_tf")
class MatMul(keras.layers.Layer):
    """Multiplies two tensors of matrices: [a, b] to a b, or a b^T.

    Args:
      transpose_b: whether b is [..., columns, inner] instead of
        [..., inner, columns]. The other axes of a and b are equal.
    """

    def __init__(self, transpose_b: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.transpose_b = transpose_b

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the product of two tensors."""
        a, b = inputs
        return tf.matmul(a, b, transpose_b=self.transpose_b)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "transpose_b": self.transpose_b}


def hidden_keys(regions: np.ndarray) -> np.ndarray:
    """Returns which keys a query does not see: those of other regions.

    Args:
      regions: integers [windows, tokens].

    Returns:
      bool [windows, queries, keys].
    """
    return regions[:, :, None] != regions[:, None]


def _relative_positions(window_size: int) -> np.ndarray:
    """Returns the row of the bias table for each pair of tokens of a window.

    As Swin's authors number them: (dy + M - 1) * (2 M - 1) + dx + M - 1 for a
    query that is dy below and dx right of its key. Shape [M**2, M**2].
    """
    y, x = np.divmod(np.arange(window_size**2), window_size)
    dy, dx = (axis[:, None] - axis + window_size - 1 for axis in (y, x))
    return dy * (2 * window_size - 1) + dx


@keras.utils.register_keras_serializable(package="qgen_tf")
class AttentionBias(keras.layers.Layer):
    """Adds Swin's relative position bias, and its mask, to attention scores.

    Scores [batch, windows * heads, tokens, tokens], windows slow and heads
    fast, with tokens = window_size**2 (arXiv 2103.14030, eq. 4 and figure 4).

    Args:
      window_size: tokens a side of a window.
      num_heads: heads of the attention.
      mask: where windows are shifted, the region of the image that each token
        comes from, integers [windows][tokens]: a token sees those of its own
        region only.

    Attributes:
      relative_position_bias: variable [(2 * window_size - 1)**2, heads].
    """

    def __init__(
        self,
        window_size: int,
        num_heads: int,
        mask: npt.ArrayLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.window_size = window_size
        self.num_heads = num_heads
        self.mask = None if mask is None else np.asarray(mask)

    def build(self, input_shape: Any) -> None:
        """Creates the table of biases.

        Raises:
          ModelError: the scores are not of such windows, heads and mask.
        """
        tokens = self.window_size**2
        _, matrices, *square = input_shape
        windows = None if self.mask is None else self.mask.shape
        self._num_windows = matrices // self.num_heads
        if (
            square != [tokens, tokens]
            or matrices % self.num_heads
            or windows not in (None, (self._num_windows, tokens))
        ):
            raise errors.ModelError(
                f"{self.name} takes scores [batch, windows * "
                f"{self.num_heads}, {tokens}, {tokens}] and a mask [windows, "
                f"{tokens}] or none, not scores {tuple(input_shape)} and a "
                f"mask {windows}."
            )
        self.relative_position_bias = self.add_weight(
            "relative_position_bias",
            ((2 * self.window_size - 1) ** 2, self.num_heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        super().build(input_shape)

    def constant(self, mask_value: float = MASK_VALUE) -> tf.Tensor:
        """Returns what is added: [windows * heads, tokens, tokens].

        Args:
          mask_value: what is added to the score of a key that is not seen.
        """
        index = _relative_positions(self.window_size)
        bias = tf.gather(self.relative_position_bias, index)
        bias = tf.tile(tf.transpose(bias, (2, 0, 1)), (self._num_windows, 1, 1))
        if self.mask is None:
            return bias
        hidden = np.repeat(hidden_keys(self.mask), self.num_heads, axis=0)
        return bias + tf.constant(hidden * mask_value, bias.dtype)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the scores with what is added."""
        return inputs + self.constant()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "window_size": self.window_size,
            "num_heads": self.num_heads,
            "mask": None if self.mask is None else self.mask.tolist(),
        }


@keras.utils.register_keras_serializable(package="qgen_tf")
class CyclicShift(keras.layers.Layer):
    """Rolls images [batch, height, width, channels] towards the upper left.

    Args:
      shift: pixels, along both axes; negative ones go back. Rows and columns
        that leave on one side come in on the other.
    """

    def __init__(self, shift: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = shift

    def build(self, input_shape: Any) -> None:
        """Checks the shift.

        Raises:
          ModelError: it is not less than a side of the images.
        """
        if abs(self.shift) >= min(input_shape[1:3]):
            raise errors.ModelError(
                f"{self.name} cannot shift images of {input_shape[1]} x "
                f"{input_shape[2]} by {self.shift}: shift by less than a side."
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the shifted images."""
        # slices, for the runtime has no operator for tf.roll
        shift = self.shift
        rows = tf.concat([inputs[:, shift:], inputs[:, :shift]], axis=1)
        return tf.concat([rows[:, :, shift:], rows[:, :, :shift]], axis=2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "shift": self.shift}
