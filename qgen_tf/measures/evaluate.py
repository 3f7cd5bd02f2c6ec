"""Loss and correctness of a model, example by example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.losses import (
    LossFn,
    correct_of,
    cross_entropy,
    losses_of,
)


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
    logits, losses, correct = [], [], []
    for images, labels in dataset:
        outputs = predict(images.numpy())
        logits.append(outputs)
        outputs = tf.constant(outputs)
        losses.append(losses_of(loss_fn, labels, outputs).numpy())
        correct.append(correct_of(loss_fn, labels, outputs).numpy())
    if not logits:
        raise errors.DataError("the data set to evaluate on is empty.")
    all_losses = np.concatenate(losses)
    if not np.isfinite(all_losses).all():
        raise errors.ModelError(
            "the model's loss is not finite: training has diverged; lower the "
            "learning rate."
        )
    return Evaluation(
        np.concatenate(logits), all_losses, np.concatenate(correct)
    )
