"""Loss and correctness of a model, example by example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras

LossFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of each example in nats.

    Args:
      labels: int [batch].
      logits: float [batch, classes].
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model makes of each example of a data set.

    Attributes:
      logits: float32 [examples, classes].
      losses: float32 [examples], in nats.
      correct: bool [examples].
    """

    logits: np.ndarray
    losses: np.ndarray
    correct: np.ndarray

    @property
    def loss(self) -> float:
        """Mean loss in nats."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def accuracy(self) -> float:
        """Share of correct examples, in points (0 to 100)."""
        return 100.0 * float(self.correct.mean())


def predictor(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a compiled function from images to logits, in inference mode."""
    forward = tf.function(
        lambda images: model(images, training=False), reduce_retracing=True
    )
    return lambda images: forward(images).numpy()


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray],
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
) -> Evaluation:
    """Evaluates a function from images to logits on every example.

    Args:
      predict: `predictor(model)`, or `Interpreter.predict` of a deployed file.
      dataset: batches of (images, int labels).
      loss_fn: (labels, logits) to the loss of each example.

    Raises:
      DataError: the data set is empty.
      ModelError: a loss is not finite.
      ConfigError: `loss_fn` does not return one loss for each example.
    """
    logits, losses, labels = [], [], []
    for images, batch_labels in dataset:
        outputs = predict(images.numpy())
        logits.append(outputs)
        losses.append(
            _losses(loss_fn, batch_labels, tf.constant(outputs)).numpy()
        )
        labels.append(batch_labels.numpy())
    if not logits:
        raise errors.DataError("the data set to evaluate on is empty.")
    all_logits = np.concatenate(logits)
    all_losses = np.concatenate(losses)
    if not np.isfinite(all_losses).all():
        raise errors.ModelError(
            "the model's loss is not finite: training has diverged; lower the "
            "learning rate."
        )
    correct = all_logits.argmax(axis=1) == np.concatenate(labels)
    return Evaluation(all_logits, all_losses, correct)


def _losses(loss_fn: LossFn, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the loss of each example; a mean over the batch is an error."""
    losses = loss_fn(labels, logits)
    if losses.shape.rank != 1:
        raise errors.ConfigError(
            "loss_fn must return the loss of each example, of shape [batch], "
            f"not {losses.shape}: leave out its mean over the batch."
        )
    return losses


class Objective:
    """Mean loss and accuracy of a model whose weights change between calls.

    Weights that make the model overflow are no error: the loss is then not
    finite, and an example whose logits are not numbers counts as wrong.
    """

    def __init__(
        self, model: keras.Model, dataset: tf.data.Dataset, loss_fn: LossFn
    ):
        """Compiles the evaluation.

        Args:
          model: images to logits.
          dataset: batches of (images, int labels); read anew in every call, so
            cache it.
          loss_fn: (labels, logits) to the loss of each example.
        """
        # The tuner's thread takes longer to start and stop, at every reading,
        # than a pass over small data.
        options = tf.data.Options()
        options.autotune.enabled = False
        self._dataset = dataset.with_options(options)

        @tf.function(reduce_retracing=True)
        def sums(images, labels):
            logits = model(images, training=False)
            losses = _losses(loss_fn, labels, logits)
            hits = tf.argmax(logits, axis=-1) == tf.cast(labels, tf.int64)
            hits &= ~tf.reduce_any(tf.math.is_nan(logits), axis=-1)
            # one tensor: one transfer to the host for a whole data set
            return tf.stack(
                [
                    tf.reduce_sum(tf.cast(losses, tf.float64)),
                    tf.math.count_nonzero(hits, dtype=tf.float64),
                    tf.cast(tf.size(labels), tf.float64),
                ]
            )

        self._sums = sums

    def __call__(self) -> tuple[float, float]:
        """Returns the mean loss, in nats, and the accuracy, in [0, 1]."""
        total = tf.zeros(3, tf.float64)
        for images, labels in self._dataset:
            total += self._sums(images, labels)
        loss, hits, count = (float(number) for number in total.numpy())
        if not count:
            raise errors.DataError("the data set to measure on is empty.")
        return loss / count, hits / count
