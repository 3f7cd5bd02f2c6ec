"""Loss and correctness of a model, example by example."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import tensorflow as tf

from qgen_tf import errors, reading, sharing
from qgen_tf.compat import keras
from qgen_tf.measures.arguments import (
    keras_model,
    require_examples,
    require_fit,
    require_labels,
    untraced_errors,
)
from qgen_tf.measures.losses import (
    LossFn,
    correct_of,
    cross_entropy,
    losses_of,
    require_match,
)
from qgen_tf.quantization.inference import InferenceModel

_MOST_WAITING = 2**16  # logits, whose losses are then computed at once


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model makes of each example of a data set.

    Attributes:
      losses: float32 [examples], in nats.
      correct: bool [examples].
    """

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


@sharing.remembered
def predictor(
    model: keras.Model | InferenceModel,
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a compiled function from images to logits, in inference mode.

    It raises a DataError for images that do not fit the model or hold NaN, and
    a ModelError for a model that is not calibrated.

    Args:
      model: a model, or a deployed network.

    Raises:
      ModelError: it is neither.
    """
    network = keras_model(model)
    forward = tf.function(
        lambda images: network(images, training=False), reduce_retracing=True
    )

    def predict(images: np.ndarray) -> np.ndarray:
        require_fit(network, [images.shape])
        if np.isnan(np.min(images)):  # which a ReLU would swallow
            raise errors.DataError(
                "a batch of images holds NaN: mend the data set or its "
                "preprocessing."
            )
        with untraced_errors():
            return forward(images).numpy()

    return predict


class Evaluator:
    """Collects losses and correctness, batch by batch.

    Losses of many batches are computed at once, and logits then let go: memory
    is a few bytes an example.
    """

    def __init__(self, loss_fn: LossFn = cross_entropy):
        """Starts without examples.

        Args:
          loss_fn: (labels, logits) to the loss of each example.
        """
        self._loss_fn = loss_fn
        self._losses: list[np.ndarray] = []
        self._correct: list[np.ndarray] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, labels: tf.Tensor, logits: np.ndarray) -> None:
        """Takes a batch in.

        Args:
          labels: int [batch].
          logits: float [batch, classes], which must not change any more.

        Raises:
          ConfigError: `loss_fn` does not return one loss for each example.
          DataError: a label is not one of the classes.
          ModelError: the logits are not [batch, classes].
        """
        labels, logits = np.asarray(labels), np.asarray(logits)
        if logits.ndim != 2 or len(logits) != len(labels):
            raise errors.ModelError(
                f"a batch of {len(labels)} images gives outputs of the shape "
                f"{logits.shape}: the model must return (batch, classes)."
            )
        require_labels(self._loss_fn, labels, logits.shape[1])
        self._waiting.append((labels, logits))
        num_logits = sum(logits.size for _, logits in self._waiting)
        # the first batch at once, to find a wrong `loss_fn` at once
        if num_logits >= _MOST_WAITING or not self._losses:
            self._compute()

    def _compute(self) -> None:
        labels, logits = map(np.concatenate, zip(*self._waiting, strict=True))
        self._waiting.clear()
        labels, outputs = tf.constant(labels), tf.constant(logits)
        losses = losses_of(self._loss_fn, labels, outputs)
        self._losses.append(losses.numpy())
        self._correct.append(correct_of(self._loss_fn, labels, outputs).numpy())

    def evaluation(self) -> Evaluation:
        """Returns what was collected.

        Raises:
          DataError: there was no batch.
          ModelError: a loss is not finite.
        """
        if self._waiting:
            self._compute()
        if not self._losses:
            raise errors.DataError("the data set to evaluate on is empty.")
        losses = np.concatenate(self._losses)
        if not np.isfinite(losses).all():
            raise errors.ModelError(
                "the model's loss is not finite: training has diverged; lower "
                "the learning rate."
            )
        return Evaluation(losses, np.concatenate(self._correct))


@runtime_checkable
class BatchPredictor(Protocol):
    """What takes several batches at once, such as an `export.Interpreter`."""

    def predict_batches(
        self, batches: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yields the logits of each batch of images, in order."""


Predict: TypeAlias = Callable[[np.ndarray], np.ndarray] | BatchPredictor


@errors.typed
def evaluate(
    predict: Predict | keras.Model | InferenceModel,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
) -> Evaluation:
    """Evaluates a function from images to logits on every example.

    Args:
      predict: a model, or a function such as `predictor(model)`, which is
        compiled once for several data sets, or an `export.Interpreter` of a
        deployed file.
      dataset: batches of (images, int labels).
      loss_fn: (labels, logits) to the loss of each example.

    Raises:
      DataError: the data set is empty, or not of batches of images that fit
        the model, without NaN, and int labels of its classes.
      ModelError: a loss is not finite, or `predict` is none of these.
      ConfigError: `loss_fn` does not return one loss for each example, or
        takes logits and the model has none.
    """
    model = None
    if isinstance(predict, keras.Model | InferenceModel):
        model = keras_model(predict)
        require_match(model, loss_fn)
        predict = predictor(model)
    if not (callable(predict) or isinstance(predict, BatchPredictor)):
        raise errors.ModelError(
            f"evaluate takes a model, not {type(predict).__name__}, or a "
            "function from images to logits, or an export.Interpreter."
        )
    require_examples(dataset, model)
    evaluator = Evaluator(loss_fn)
    waiting: collections.deque[tf.Tensor] = collections.deque()

    def batches() -> Iterator[np.ndarray]:
        for images, labels in reading.untuned(dataset):
            waiting.append(labels)
            yield np.asarray(images)  # `numpy()` would copy them

    with contextlib.closing(_outputs(predict, batches())) as outputs:
        for logits in outputs:
            evaluator.add(waiting.popleft(), logits)
    return evaluator.evaluation()


def _outputs(
    predict: Predict, batches: Iterator[np.ndarray]
) -> Generator[np.ndarray, None, None]:
    if isinstance(predict, BatchPredictor):
        yield from predict.predict_batches(batches)
    else:
        yield from map(predict, batches)
