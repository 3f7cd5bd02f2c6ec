"""The mask of shifted windows, on an integer grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.utils import control_flow_util

from qgen_tf.compat import keras
from qgen_tf.layers import hidden_keys

_DISTANCE = 10.0


@keras.utils.register_keras_serializable(package="qgen_tf")
class KeyMask(keras.layers.Layer):
    """Lowers the scores of keys that a query does not see.

    On an integer grid a score of -100 would cost all others their precision.
    Softmax makes less than a level of a score that is 10 below the others. So
    in training and calibration, which find that grid, scores that are not seen
    are cut at 10 less than any query's highest one. In inference they are cut
    at `low`, which the grid takes to its lowest level, and that is what the
    integer network has there.

    Attributes:
      low: highest score that is not seen.
      high: highest score that is.
    """

    def __init__(
        self,
        regions: Sequence[Sequence[int]],
        num_heads: int,
        low: float = -100.0,
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
        self._is_calibrating = False

    def call(
        self, scores: tf.Tensor, training: bool | tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the scores, cut."""
        if training is None:
            training = keras.backend.learning_phase()
        hidden = np.repeat(
            hidden_keys(np.asarray(self.regions)), self.num_heads, axis=0
        )

        def low_enough() -> tf.Tensor:
            seen = tf.where(hidden, scores.dtype.min, scores)
            return tf.reduce_min(tf.reduce_max(seen, -1)) - _DISTANCE

        low = control_flow_util.smart_cond(
            self._is_calibrating or training,
            low_enough,
            lambda: tf.constant(self.low, scores.dtype),
        )
        high = tf.cast(self.high, scores.dtype)
        highest = tf.where(hidden, tf.stop_gradient(low), high)
        return tf.minimum(scores, highest)

    @contextlib.contextmanager
    def calibrating(self) -> Iterator[None]:
        """Shows the grid behind how low a score has to be."""
        self._is_calibrating = True
        try:
            yield
        finally:
            self._is_calibrating = False

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "regions": self.regions,
            "num_heads": self.num_heads,
            "low": self.low,
            "high": self.high,
        }
