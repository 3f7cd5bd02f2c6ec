"""The mask of shifted windows, on an integer grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.layers import hidden_keys


@keras.utils.register_keras_serializable(package="qgen_tf")
class KeyMask(keras.layers.Layer):
    """Lowers the scores of keys that a query does not see.

    On an integer grid a score of -100 would cost all others their precision.
    Softmax makes less than a level of a score that is 10 below the others; so
    scores that are not seen are cut at `low`, which calibration finds on them
    and which is the lowest level of the grid later.

    Attributes:
      low: highest score that is not seen.
      high: highest score that is.
    """

    def __init__(
        self,
        regions: Sequence[Sequence[int]],
        num_heads: int,
        low: float = -10.0,
        high: float = float(np.finfo(np.float32).max),
        **kwargs: Any,
    ):
        """Takes a mask.

        Args:
          regions: of the tokens of each window; a token sees its own region.
          num_heads: of scores [batch, windows * heads, queries, keys].
          low: see above.
          high: lowest score that changes nothing.
          **kwargs: of a layer.
        """
        super().__init__(**kwargs)
        self.regions = np.asarray(regions).tolist()
        self.num_heads = num_heads
        self.low = low
        self.high = high

    def call(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns the scores, cut."""
        regions = np.asarray(self.regions)
        highest = np.where(hidden_keys(regions), self.low, self.high)
        highest = np.repeat(highest, self.num_heads, axis=0)
        return tf.minimum(scores, highest.astype(scores.dtype.as_numpy_dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "regions": self.regions,
            "num_heads": self.num_heads,
            "low": self.low,
            "high": self.high,
        }
