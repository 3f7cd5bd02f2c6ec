"""What a measure is given: a model, and batches of images and labels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import compat, errors
from qgen_tf.compat import keras
from qgen_tf.measures.losses import CrossEntropy, LossFn
from qgen_tf.quantization.inference import InferenceModel


def keras_model(model: keras.Model | InferenceModel) -> keras.Model:
    """Returns a model as it is, and that of a deployed network.

    Raises:
      ModelError: it is neither.
    """
    if isinstance(model, InferenceModel):
        return model.model
    compat.require_legacy(model)
    return model


def chosen_weights(
    model: keras.Model, variables: Callable[[keras.Model], list[tf.Variable]]
) -> list[tf.Variable]:
    """Returns the weights of a model that a measure is asked for.

    Raises:
      ConfigError: `variables` is no function.
    """
    if not callable(variables):
        raise errors.ConfigError(
            f"variables is {type(variables).__name__}: pass a function from a "
            "model to its weights, such as measures.of_layer(name)."
        )
    return variables(model)


def require_examples(
    dataset: tf.data.Dataset, model: keras.Model | None = None
) -> None:
    """Raises unless a data set is one of batches of (images, int labels).

    Nothing is read but the first batch of a data set that does not say what
    its shapes are.

    Args:
      dataset: what was passed for a data set.
      model: that takes the images, if it is known.

    Raises:
      DataError: says what the data set is instead.
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise errors.DataError(
            "the data set must be a tf.data.Dataset, not "
            f"{type(dataset).__name__}: make one by "
            "tf.data.Dataset.from_tensor_slices((images, labels)).batch(64)."
        )
    spec = _spec(dataset)
    if not (
        isinstance(spec, tuple)
        and len(spec) == 2
        and isinstance(spec[1], tf.TensorSpec)
    ):
        raise errors.DataError(
            "the data set must consist of pairs (images, labels), and has "
            f"{spec}: map its elements to such pairs."
        )
    images, labels = spec
    if labels.shape.rank == 0:
        raise errors.DataError(
            "the data set consists of single examples: pass batches of them, "
            "dataset.batch(64)."
        )
    if labels.shape.rank != 1 or not labels.dtype.is_integer:
        raise errors.DataError(
            f"the labels of a batch are {labels.dtype.name} of the shape "
            f"{labels.shape}: they must be the numbers of the classes, int of "
            "the shape (batch,); of one-hot labels take tf.argmax(labels, -1)."
        )
    if model is not None:
        require_fit(model, [part.shape for part in tf.nest.flatten(images)])


def _spec(dataset: tf.data.Dataset) -> Any:
    """Returns the type of an element, its ranks known."""
    spec = dataset.element_spec
    shapes = [getattr(part, "shape", None) for part in tf.nest.flatten(spec)]
    if all(shape is None or shape.rank is not None for shape in shapes):
        return spec
    for element in dataset.take(1):
        return tf.nest.map_structure(tf.type_spec_from_value, element)
    raise errors.DataError("the data set to measure on is empty.")


def require_fit(model: keras.Model, shapes: list[Any]) -> None:
    """Raises a DataError unless batches of images have a model's shapes.

    Kernels may end the process where an axis is missing.

    Args:
      model: the shapes of a model without symbolic inputs are not known, and
        nothing is asked for.
      shapes: of a batch, for each input.
    """
    wanted = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    if wanted and not (
        len(wanted) == len(shapes)
        and all(map(tf.TensorShape.is_compatible_with, wanted, shapes))
    ):
        raise errors.DataError(
            f"a batch of images has the shape {_text(shapes)}, and model "
            f"{model.name!r} takes {_text(wanted)}: make the images of that "
            "size, and pass them in batches."
        )


def _text(shapes: list[Any]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)


def require_labels(
    loss_fn: LossFn, labels: np.ndarray, num_outputs: int
) -> None:
    """Raises a DataError if the cross-entropy has no output for a label.

    Args:
      loss_fn: of another one the labels may be anything.
      labels: int [batch].
      num_outputs: of the model; one output stands for two classes.
    """
    num_classes = max(num_outputs, 2)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if isinstance(loss_fn, CrossEntropy) and wrong.size:
        raise errors.DataError(
            f"the data set has the label {wrong[0]}, and the model's outputs "
            f"stand for the labels 0 to {num_classes - 1}: pass the data set "
            "that the model was trained for."
        )


@contextlib.contextmanager
def untraced_errors() -> Iterator[None]:
    """Raises a UserError as it was before it passed through Keras layers.

    These, and functions that are compiled, wrap its sentence in what they know
    of where they were.
    """
    try:
        yield
    except errors.UserError as error:
        first = error
        while isinstance(first.__context__, errors.UserError):
            first = first.__context__
        raise first from None
