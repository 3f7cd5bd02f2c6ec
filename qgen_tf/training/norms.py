"""BatchNorm statistics: of the weights as they are, and of all replicas."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.batches import image_batches
from qgen_tf.quantization.quantize import unwrapped
from qgen_tf.quantization.quantizers.variables import in_float32

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
            graph.inline(model, inputs, _in_training)
            seen += size
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _in_training(layer: Layer, apply: Callable[..., Any]) -> Any:
    """Calls a layer in inference mode, but BatchNorm in training mode."""
    norm = unwrapped(layer)
    if not isinstance(norm, keras.layers.BatchNormalization):
        return apply(layer)
    outputs = apply(functools.partial(norm, training=True))
    return _quantized(layer, outputs, training=False)


def over_replicas(
    layer: Layer, apply: Callable[..., Any], shares: tf.Tensor, count: tf.Tensor
) -> Any:
    """Calls a layer, but BatchNorm with the statistics of all replicas.

    Mean and variance of the examples of all replicas normalize each of them,
    and move the averages, as those of the whole batch do on one device: the
    averages stay the same on all replicas.

    Args:
      layer: of a model in training.
      apply: applies a callable to the arguments of this layer call.
      shares: float32 [examples of this replica], of each example in the mean;
        those of all replicas sum to one.
      count: float32, examples of all replicas.
    """
    norm = unwrapped(layer)
    if (
        not isinstance(norm, keras.layers.BatchNormalization)
        or not norm.trainable
    ):
        return apply(layer)
    outputs = apply(functools.partial(_normalized, norm, shares, count))
    return _quantized(layer, outputs, training=True)


def _normalized(
    norm: Layer, shares: tf.Tensor, count: tf.Tensor, inputs: tf.Tensor
) -> tf.Tensor:
    """Returns what a BatchNorm over the last axis makes of the inputs."""
    values = tf.cast(inputs, tf.float32)
    context = tf.distribute.get_replica_context()
    positions = tuple(range(1, len(values.shape) - 1))

    def mean_of(terms: tf.Tensor) -> tf.Tensor:
        of_examples = tf.reduce_mean(terms, axis=positions)
        here = tf.reduce_sum(shares[:, tf.newaxis] * of_examples, axis=0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, here)

    mean = mean_of(values)
    variance = mean_of(tf.square(values - mean))
    spread = variance
    if norm.fused:  # whose moving average is that of the unbiased variance
        count *= math.prod(values.shape[axis] for axis in positions)
        spread *= count / tf.maximum(count - 1.0, 1.0)
    for average, new in (
        (norm.moving_mean, mean),
        (norm.moving_variance, spread),
    ):
        average.assign(
            norm.momentum * in_float32(average) + (1.0 - norm.momentum) * new
        )
    outputs = tf.nn.batch_normalization(
        values,
        mean,
        variance,
        in_float32(norm.beta) if norm.center else None,
        in_float32(norm.gamma) if norm.scale else None,
        norm.epsilon,
    )
    return tf.cast(outputs, norm.compute_dtype)


def _quantized(layer: Layer, outputs: tf.Tensor, *, training: bool) -> Any:
    """Applies the output quantizer of a wrapper, if `layer` is one."""
    if layer is unwrapped(layer) or not layer.quantize_config.output_quantizer:
        return outputs
    quantizer = layer.quantize_config.output_quantizer
    return quantizer(outputs, training, layer._output_quantizer_vars)
