"""Does the file generalize as the trained model does?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from export.deployed import require_deployed
from export.flatbuffer import float_operators
from export.interpreter import Interpreter
from export.model_file import parse
from export.runtime_model import runtime_model
from qgen_tf import errors, reading
from qgen_tf.compat import keras
from qgen_tf.measures.arguments import keras_model, require_examples
from qgen_tf.measures.equivalence import (
    Equivalence,
    McNemar,
    accuracy_equivalence,
    equivalence,
    mcnemar,
    require_margin,
    verdict,
)
from qgen_tf.measures.evaluate import Evaluation, Evaluator, predictor
from qgen_tf.measures.generalization_gap import (
    GeneralizationGap,
    gap_difference,
    generalization_gap,
)
from qgen_tf.measures.losses import ends_in_probabilities
from qgen_tf.quantization import InferenceModel

MARGIN = 0.5

_Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]
_Progress: TypeAlias = Callable[[tf.data.Dataset], Iterable[Any]]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far file and model are apart on one data set.

    Attributes:
      num_examples: of the data set.
      accuracy: of the file, in points.
      loss: of the file, in nats.
      trained_accuracy: of the trained model, in points.
      trained_loss: of the trained model, in nats.
      argmax_agreement: share of examples, in points, on which file and trained
        model choose the same class.
      max_steps: largest difference of a logit between the file and the trained
        model, in steps of the output (in logits for a float file).
      argmax_agreement_deployed: the same for file and deployed network, which
        rounds biases as the file does, in the arithmetic of the kernels.
      max_steps_deployed: likewise.
      equivalence: of the accuracies of file and trained model.
      mcnemar: the file, ours, against the trained model, theirs.
    """

    num_examples: int
    accuracy: float
    loss: float
    trained_accuracy: float
    trained_loss: float
    argmax_agreement: float
    max_steps: float
    argmax_agreement_deployed: float
    max_steps_deployed: float
    equivalence: Equivalence
    mcnemar: McNemar


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """The gap to a corrupted test set: train minus corrupted test.

    Attributes:
      keras_gap: of the trained model.
      tflite_gap: of the file.
      difference: file minus model, paired example by example.
      equivalence: of the two gaps.
      test: agreement on the corrupted test set.
    """

    keras_gap: GeneralizationGap
    tflite_gap: GeneralizationGap
    difference: GeneralizationGap
    equivalence: Equivalence
    test: Agreement


@dataclasses.dataclass(frozen=True)
class Verification:
    """The file against the model that was trained.

    Attributes:
      verdict: "same", "different" or "cannot tell": see
        `qgen_tf.measures.equivalence.verdict`. It is of the gap to the test
        set as it is; a corrupted one has no say in it.
      keras_gap: gap of the trained model.
      tflite_gap: gap of the file.
      difference: file minus model, paired example by example.
      equivalence: of the two gaps.
      train: agreement on the training set.
      test: agreement on the test set.
      corrupted: the gap to a corrupted test set, if there was one.
      num_bytes: size of the file.
      float_operators: kinds of the operators that compute in float, one for
        each operator.
      kernels: of the runtime that the file was run with.
      expand_low_bits: whether weights were expanded to 8 bits to run it.
    """

    verdict: str
    keras_gap: GeneralizationGap
    tflite_gap: GeneralizationGap
    difference: GeneralizationGap
    equivalence: Equivalence
    train: Agreement
    test: Agreement
    corrupted: Corrupted | None
    num_bytes: int
    float_operators: tuple[str, ...]
    kernels: str
    expand_low_bits: bool


def verify(
    model: keras.Model,
    network: InferenceModel,
    content: bytes,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    *,
    margin: float = MARGIN,
    seed: int = 0,
    kernels: str = "xnnpack",
    expand_low_bits: bool = False,
    corrupted: tf.data.Dataset | None = None,
    progress: _Progress = iter,
) -> Verification:
    """Evaluates model and file on whole data sets and compares their gaps.

    Each data set is read once, and model, network and file see a batch one
    after the other: memory is some 10 bytes an example.

    Args:
      model: as trained, float or quantized.
      network: the deployed network of `model`.
      content: the TensorFlow Lite file of `network`. One that somebody else
        made belongs through `export.sandbox.probe` first.
      train: batches of (images, int labels) of the training set, without
        augmentation, in a fixed order.
      test: of the test set.
      margin: largest difference of the gaps that counts as none, in points.
      seed: of the bootstrap.
      kernels: of the runtime; see `Interpreter`.
      expand_low_bits: whether the runtime gets weights of fewer than 8 bits
        as int8; see `Interpreter`.
      corrupted: of a corrupted test set.
      progress: given a data set, yields its batches, as `tqdm.tqdm` does.

    Raises:
      ConfigError: the margin is not positive, or `progress` is no function.
      DataError: a data set has fewer than two examples, or is not of batches
        of images that fit the model and int labels of its classes.
      ModelError: a loss is not finite, there is no model, or it ends in
        probabilities.
      ExportError: the file cannot be run, or has other outputs than the model,
        or there is no deployed network.
    """
    require_margin(margin)
    require_deployed(network)
    _require_logits(keras_model(model))
    if not callable(progress):
        raise errors.ConfigError(
            f"progress is {progress!r}: pass a function such as tqdm.tqdm, or "
            "leave it out."
        )
    for dataset in (train, test, *([] if corrupted is None else [corrupted])):
        require_examples(dataset, keras_model(model))
    interpreter = Interpreter(
        content, kernels=kernels, expand_low_bits=expand_low_bits
    )
    deployed = runtime_model(network, kernels=kernels)
    sides = _Sides(predictor(model), predictor(deployed), interpreter.predict)
    step_size = interpreter.output_step_size or 1.0

    def evaluated(dataset: tf.data.Dataset) -> _Evaluated:
        # the next is loaded while the sides run
        batches = progress(reading.untuned(dataset).prefetch(1))
        return _evaluated(sides, batches, step_size=step_size, margin=margin)

    trained_on, tested_on = evaluated(train), evaluated(test)
    compared = _compared(trained_on, tested_on, margin=margin, seed=seed)
    on_corrupted = None
    if corrupted is not None:
        corrupted_on = evaluated(corrupted)
        on_corrupted = Corrupted(
            **_compared(trained_on, corrupted_on, margin=margin, seed=seed)
        )
    return Verification(
        verdict=verdict(
            compared["equivalence"],
            compared["difference"].accuracy,
            [trained_on.agreement.equivalence, tested_on.agreement.equivalence],
        ),
        **compared,
        train=trained_on.agreement,
        corrupted=on_corrupted,
        num_bytes=len(content),
        float_operators=tuple(float_operators(parse(content))),
        kernels=kernels,
        expand_low_bits=expand_low_bits,
    )


def _require_logits(model: keras.Model) -> None:
    if ends_in_probabilities(model):
        raise errors.ModelError(
            f"model {model.name!r} ends in probabilities, and the loss takes "
            "logits: leave its last activation out, then train and export it "
            "again."
        )


@dataclasses.dataclass(frozen=True)
class _Sides:
    """From images to logits, three times."""

    trained: _Predict
    deployed: _Predict
    file: _Predict


@dataclasses.dataclass(frozen=True)
class _Evaluated:
    """Model and file on one data set."""

    trained: Evaluation
    file: Evaluation
    agreement: Agreement


def _evaluated(
    sides: _Sides, batches: Iterable[Any], *, step_size: float, margin: float
) -> _Evaluated:
    of_trained, of_file = Evaluator(), Evaluator()
    # of the trained model, of the deployed network
    same_class, largest = np.zeros(2, int), np.zeros(2)
    for images, labels in batches:
        pixels = np.asarray(images)  # no copy
        trained, deployed, file = (
            predict(pixels)
            for predict in (sides.trained, sides.deployed, sides.file)
        )
        if file.shape != trained.shape:
            raise errors.ExportError(
                f"the file has outputs of shape {file.shape[1:]}, the model "
                f"of {trained.shape[1:]}: it is not the file of this model."
            )
        of_trained.add(labels, trained)
        of_file.add(labels, file)
        for index, other in enumerate((trained, deployed)):
            same = file.argmax(axis=1) == other.argmax(axis=1)
            same_class[index] += same.sum()
            off = np.abs(file - other).max() / step_size
            largest[index] = np.maximum(largest[index], off)
    trained_on, file_on = of_trained.evaluation(), of_file.evaluation()
    shares = (100.0 * same_class / len(file_on.losses)).tolist()
    agreement = Agreement(
        num_examples=len(file_on.losses),
        accuracy=file_on.accuracy,
        loss=file_on.loss,
        trained_accuracy=trained_on.accuracy,
        trained_loss=trained_on.loss,
        argmax_agreement=shares[0],
        max_steps=float(largest[0]),
        argmax_agreement_deployed=shares[1],
        max_steps_deployed=float(largest[1]),
        equivalence=accuracy_equivalence(file_on, trained_on, margin=margin),
        mcnemar=mcnemar(file_on, trained_on),
    )
    return _Evaluated(trained_on, file_on, agreement)


def _compared(
    train: _Evaluated, test: _Evaluated, *, margin: float, seed: int
) -> dict[str, Any]:
    """Returns what `Verification` and `Corrupted` have in common."""
    file = train.file, test.file
    trained = train.trained, test.trained
    return {
        "keras_gap": generalization_gap(*trained, seed=seed),
        "tflite_gap": generalization_gap(*file, seed=seed),
        "difference": gap_difference(file, trained, seed=seed),
        "equivalence": equivalence(file, trained, margin=margin),
        "test": test.agreement,
    }
