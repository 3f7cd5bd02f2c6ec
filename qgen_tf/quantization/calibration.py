"""Shows a quantized model data, to set the grids of its activations."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph, quantizers
from qgen_tf.quantization.batches import image_batches
from qgen_tf.quantization.key_mask import KeyMask
from qgen_tf.quantization.quantize import unwrapped, wrappers


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
      DataError: the data set is none, or empty, its images do not fit the
        model, or they contain NaN or infinity.
    """
    graph.require_functional(model)
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
    with contextlib.ExitStack() as stack:
        for quantizer in activations:
            stack.callback(setattr, quantizer, "observer", None)
        for layer in map(unwrapped, wrapped):
            if isinstance(layer, KeyMask):
                stack.enter_context(layer.calibrating())
        for images in image_batches(model, dataset, name="calibration data"):
            model(images, training=False)
            observers = [quantizer.observer for quantizer in activations]
            if not all(observer.is_finite for observer in observers):
                raise errors.ModelError(
                    f"model {model.name!r} computes NaN or infinity from the "
                    "calibration data: its weights have diverged."
                )
