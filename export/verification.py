"""Does the file generalize as the trained model does?"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from export.interpreter import Interpreter
from qgen_tf.compat import keras
from qgen_tf.measures import (
    Evaluation,
    GeneralizationGap,
    evaluate,
    gap_difference,
    generalization_gap,
    predictor,
)
from qgen_tf.quantization import InferenceModel

MARGIN = 0.5


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far file and model are apart on one data set.

    Attributes:
      accuracy: of the file, in points.
      loss: of the file, in nats.
      argmax_agreement: share of examples, in points, on which file and trained
        model choose the same class.
      max_steps: largest difference of a logit between the file and the trained
        model, in steps of the output (in logits for a float file).
      max_steps_deployed: the same between the file and the deployed network,
        which rounds biases as the file does.
    """

    accuracy: float
    loss: float
    argmax_agreement: float
    max_steps: float
    max_steps_deployed: float


@dataclasses.dataclass(frozen=True)
class Verification:
    """The file against the model that was trained.

    Attributes:
      verdict: "same" if the interval of the difference in accuracy gap lies
        within `MARGIN` points of zero, "different" if it lies outside, else
        "cannot tell": more examples would decide.
      keras_gap: gap of the trained model.
      tflite_gap: gap of the file.
      difference: file minus model, paired example by example.
      train: agreement on the training set.
      test: agreement on the test set.
      num_bytes: size of the file.
    """

    verdict: str
    keras_gap: GeneralizationGap
    tflite_gap: GeneralizationGap
    difference: GeneralizationGap
    train: Agreement
    test: Agreement
    num_bytes: int


def verify(
    model: keras.Model,
    network: InferenceModel,
    content: bytes,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    *,
    seed: int = 0,
) -> Verification:
    """Evaluates model and file on whole data sets and compares their gaps.

    Args:
      model: as trained, float or quantized.
      network: the deployed network of `model`.
      content: the TensorFlow Lite file of `network`.
      train: batches of (images, int labels) of the training set, without
        augmentation, in a fixed order.
      test: of the test set.
      seed: of the bootstrap.
    """
    interpreter = Interpreter(content)
    keras_side, deployed_side, file_side = (
        (evaluate(predict, train), evaluate(predict, test))
        for predict in (
            predictor(model),
            predictor(network.model),
            interpreter.predict,
        )
    )
    agreements = [
        _agreement(*sides, step_size=interpreter.output_step_size or 1.0)
        for sides in zip(keras_side, deployed_side, file_side, strict=True)
    ]
    difference = gap_difference(file_side, keras_side, seed=seed)
    return Verification(
        verdict=_verdict(difference),
        keras_gap=generalization_gap(*keras_side, seed=seed),
        tflite_gap=generalization_gap(*file_side, seed=seed),
        difference=difference,
        train=agreements[0],
        test=agreements[1],
        num_bytes=len(content),
    )


def _agreement(
    trained: Evaluation,
    deployed: Evaluation,
    file: Evaluation,
    *,
    step_size: float,
) -> Agreement:
    choices = file.logits.argmax(axis=1) == trained.logits.argmax(axis=1)
    return Agreement(
        accuracy=file.accuracy,
        loss=file.loss,
        argmax_agreement=100.0 * float(choices.mean()),
        max_steps=_max_difference(file, trained) / step_size,
        max_steps_deployed=_max_difference(file, deployed) / step_size,
    )


def _max_difference(a: Evaluation, b: Evaluation) -> float:
    return float(np.abs(a.logits - b.logits).max())


def _verdict(difference: GeneralizationGap) -> str:
    low, high = difference.accuracy.low, difference.accuracy.high
    if -MARGIN <= low and high <= MARGIN:
        return "same"
    if high < -MARGIN or low > MARGIN:
        return "different"
    return "cannot tell"
