"""BatchNorm statistics of the weights as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.batches import image_batches
from qgen_tf.quantization.quantize import unwrapped

Layer: TypeAlias = keras.layers.Layer

_DATA = "data to re-estimate BatchNorm statistics"


def reestimate_norms(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Sets the moving statistics of every BatchNorm to averages over data.

    While weights jump between levels, the averages that training keeps are of
    other weights than the last ones (Nagel et al. 2022, arXiv 2203.11086,
    section 2.3.1). Here they become the averages of the means and variances
    of the batches of a data set, as each BatchNorm computes them in training,
    weighted by the sizes of the batches. Nothing else changes, and a BatchNorm
    that is not trainable keeps its statistics.

    Args:
      model: a Functional model, float or from `quantize_model`.
      dataset: shuffled batches of images or of (images, labels); all are used.

    Raises:
      ModelError: the model is not Functional.
      DataError: the data set is empty, its images do not fit the model, or
        they contain NaN or infinity.
    """
    graph.require_functional(model)
    norms = [
        inner
        for inner in (
            unwrapped(node.layer) for node in graph.inner_nodes(model)
        )
        if isinstance(inner, keras.layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    seen = 0
    try:
        for images in image_batches(model, dataset, name=_DATA):
            inputs = [
                tf.cast(given, wanted.dtype)
                for given, wanted in zip(
                    tf.nest.flatten(images), model.inputs, strict=True
                )
            ]
            size = int(inputs[0].shape[0])
            for norm in norms:
                norm.momentum = seen / (seen + size)
            graph.inline(model, inputs, _call)
            seen += size
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _call(layer: Layer, apply: Callable[..., Any]) -> Any:
    """Calls a layer in inference mode, but BatchNorm in training mode."""
    norm = unwrapped(layer)
    if not isinstance(norm, keras.layers.BatchNormalization):
        return apply(layer)
    outputs = apply(functools.partial(norm, training=True))
    if norm is not layer and layer.quantize_config.output_quantizer:
        quantizer = layer.quantize_config.output_quantizer
        return quantizer(outputs, False, layer._output_quantizer_vars)
    return outputs
