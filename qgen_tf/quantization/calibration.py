"""Shows a quantized model data, to set the grids of its activations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import quantizers
from qgen_tf.quantization.quantize import wrappers


def calibrate(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Sets the grid of every activation quantizer from data.

    Runs the model eagerly, in inference mode, so that each quantizer sees the
    quantized output of those before it and all replicas of a distributed
    model get the same values.

    Args:
      model: from `quantize_model`.
      dataset: batches of images or of (images, labels); all are used, and a
        few hundred examples are enough.

    Raises:
      ModelError: the model is not quantized, or computes NaN or infinity.
      DataError: the data set is empty, its images do not fit the model, or
        they contain NaN or infinity.
    """
    wrapped = wrappers(model)
    if not wrapped:
        raise errors.ModelError(
            f"model {model.name!r} is not quantized: call quantize_model first."
        )
    activations = [
        wrapper.quantize_config.output_quantizer
        for wrapper in wrapped
        if wrapper.quantize_config.output_quantizer is not None
    ]
    for quantizer in activations:
        quantizer.observer = quantizers.Observer()
    try:
        for images in _checked(model, dataset):
            model(images, training=False)
            observers = [quantizer.observer for quantizer in activations]
            if not all(observer.is_finite for observer in observers):
                raise errors.ModelError(
                    f"model {model.name!r} computes NaN or infinity from the "
                    "calibration data: its weights have diverged."
                )
    finally:
        for quantizer in activations:
            quantizer.observer = None


def _checked(model: keras.Model, dataset: tf.data.Dataset) -> Iterator[Any]:
    """Yields the images of each batch, once they are known to fit."""
    batches = iter(dataset)
    first = next(batches, None)
    if first is None:
        raise errors.DataError("the calibration data set is empty.")
    for index, batch in enumerate(itertools.chain([first], batches)):
        images = batch[0] if isinstance(batch, tuple) else batch
        tensors, inputs = tf.nest.flatten(images), model.inputs
        for tensor, wanted in zip(tensors, inputs, strict=False):
            if len(tensors) != len(
                inputs
            ) or not wanted.shape.is_compatible_with(np.shape(tensor)):
                raise errors.DataError(
                    f"batch {index} of the calibration data has the shape "
                    f"{np.shape(tensor)}; model {model.name!r} takes "
                    f"{tuple(wanted.shape)}."
                )
            if not np.isfinite(tensor).all():
                raise errors.DataError(
                    f"batch {index} of the calibration data contains NaN or "
                    "infinity."
                )
        yield images
