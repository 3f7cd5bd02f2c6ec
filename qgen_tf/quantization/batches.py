"""The images that a model is shown outside of training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors, reading
from qgen_tf.compat import keras

_NUMBERS = "fiub"  # kinds of numpy: float, int, unsigned, bool


def image_batches(
    model: keras.Model, dataset: tf.data.Dataset, *, name: str
) -> Iterator[Any]:
    """Yields the images of each batch, once they are known to fit a model.

    Args:
      model: a Functional model.
      dataset: batches of images or of (images, labels); all are used.
      name: of the data, for errors: "calibration data".

    Raises:
      DataError: there are no data, they do not fit the model, or they contain
        NaN or infinity.
    """
    if not isinstance(dataset, Iterable):
        raise errors.DataError(
            f"the {name} are {type(dataset).__name__}: pass a tf.data.Dataset "
            "of batches of images."
        )
    if isinstance(dataset, tf.data.Dataset):
        dataset = reading.untuned(dataset)
    batches = iter(dataset)
    first = next(batches, None)
    if first is None:
        raise errors.DataError(
            f"the {name} are empty: pass some batches of images."
        )
    for index, batch in enumerate(itertools.chain([first], batches)):
        images = batch[0] if isinstance(batch, tuple) and batch else batch
        tensors, inputs = tf.nest.flatten(images), model.inputs
        if len(tensors) != len(inputs):
            raise errors.DataError(
                f"batch {index} of the {name} has {len(tensors)} tensors of "
                f"images; model {model.name!r} takes {len(inputs)}: pass "
                "batches of images, or of (images, labels)."
            )
        for tensor, wanted in zip(tensors, inputs, strict=True):
            where = f"batch {index} of the {name}"
            _require_images(tensor, wanted, where, model.name)
        yield images


def _require_images(
    tensor: Any, wanted: tf.Tensor, where: str, model: str
) -> None:
    """Raises a DataError unless a model can be shown a batch."""
    shape, values = np.shape(tensor), np.asarray(tensor)
    if not wanted.shape.is_compatible_with(shape):
        raise errors.DataError(
            f"{where} has the shape {shape}; model {model!r} takes "
            f"{tuple(wanted.shape)}: make the images of that size, and pass "
            "them in batches."
        )
    if values.dtype.kind not in _NUMBERS:
        raise errors.DataError(
            f"{where} is of {values.dtype}: pass arrays or dense tensors of "
            "numbers."
        )
    if not values.size:
        raise errors.DataError(f"{where} is empty: leave it out.")
    if not np.isfinite(values).all():
        raise errors.DataError(
            f"{where} contains NaN or infinity: mend the images or their "
            "preprocessing."
        )
