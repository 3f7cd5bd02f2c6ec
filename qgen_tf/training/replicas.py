"""Steps on several replicas that are the steps of one device."""

from __future__ import annotations

import contextvars
import functools
from typing import Any

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.training import norms, strategies
from qgen_tf.training.qat_model import QATModel

# of the batch at hand: see `norms.over_replicas`
_shares_and_count = contextvars.ContextVar[tuple[tf.Tensor, tf.Tensor]](
    "shares_and_count"
)


def even_batches(dataset: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Returns batches that the replicas can share: what `ReplicatedModel` fits.

    A batch is filled up with examples of its own, whose weight is 0, to the
    next multiple of the number of replicas; so is the last batch of an epoch,
    to the same size. Each worker reads all batches and keeps its share.

    Args:
      dataset: batches of (images, labels).
      batch_size: examples of a batch; there may be fewer.

    Returns:
      Batches of (images, labels, weights), of a size that is known.
    """
    replicas = strategies.num_replicas()
    size = -(-batch_size // replicas) * replicas

    def fill(*tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count, places = tf.shape(tensors[0])[0], tf.range(size)
        weights = tf.cast(places < count, tf.float32)
        return *(tf.gather(t, places % count) for t in tensors), weights

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.map(fill).with_options(options)


class ReplicatedModel(QATModel):
    """A `QATModel` that takes the same steps on any number of replicas.

    Losses, BatchNorm statistics and what `fit` reports are means over the
    examples of all replicas, each of which counts once. Keras would average
    over the examples of a replica, then over replicas: another loss where
    replicas have unequal numbers of examples, and other statistics always.

    It is for float models, too, and is fitted to `even_batches`.
    """

    def __init__(self, model: keras.Model, **aids: Any):
        """Wraps a model; the arguments are those of `QATModel`."""
        super().__init__(model, **aids)
        # takes the place of the metric of Keras that has this name
        self._mean_loss = keras.metrics.Mean("loss")

    def train_step(self, data):
        """Takes a step on (images, labels, weights)."""
        *_, weights = data
        count = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.reduce_sum(weights)
        )
        # a replica has a thread of its own, and so a context
        token = _shares_and_count.set((weights / count, count))
        try:
            return super().train_step(data)
        finally:
            _shares_and_count.reset(token)

    def call(self, inputs, training=None, mask=None):
        """Computes logits; in training, of a batch over all replicas."""
        if not training:
            return super().call(inputs, training, mask)
        shares, count = _shares_and_count.get()
        call_layer = functools.partial(
            norms.over_replicas, shares=shares, count=count
        )
        return graph.inline(self, [inputs], call_layer)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """Returns what this replica adds to the loss of the batch."""
        replicas = strategies.num_replicas()
        shares, count = _shares_and_count.get()
        # Keras divides by the size of the batch and the number of replicas
        size = tf.cast(tf.size(shares) * replicas, tf.float32)
        loss = super().compute_loss(x, y, y_pred, size * shares)
        self._mean_loss.update_state(
            replicas * loss, sample_weight=count / replicas
        )
        return loss
