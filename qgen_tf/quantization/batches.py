"""The images that a model is shown outside of training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras


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
    batches = iter(dataset)
    first = next(batches, None)
    if first is None:
        raise errors.DataError(f"the {name} are empty.")
    for index, batch in enumerate(itertools.chain([first], batches)):
        images = batch[0] if isinstance(batch, tuple) else batch
        tensors, inputs = tf.nest.flatten(images), model.inputs
        for tensor, wanted in zip(tensors, inputs, strict=False):
            if len(tensors) != len(
                inputs
            ) or not wanted.shape.is_compatible_with(np.shape(tensor)):
                raise errors.DataError(
                    f"batch {index} of the {name} has the shape "
                    f"{np.shape(tensor)}; model {model.name!r} takes "
                    f"{tuple(wanted.shape)}."
                )
            if not np.isfinite(tensor).all():
                raise errors.DataError(
                    f"batch {index} of the {name} contains NaN or infinity."
                )
        yield images
