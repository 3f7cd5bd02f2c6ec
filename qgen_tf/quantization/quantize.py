"""Turns a float model into one that trains with quantized weights."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.quantization.keras import (
    QuantizeWrapperV2 as QuantizeWrapper,
)

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph, quantizers
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig
from qgen_tf.quantization.quantize_registry import (
    WEIGHTS,
    Role,
    has_activation,
    is_non_negative,
    role,
)
from qgen_tf.quantization.quantize_scheme import (
    FLOAT_BITS,
    BitScheme,
    ExplicitScheme,
)

Layer: TypeAlias = keras.layers.Layer

PREFIX = "quant_"


class _Planner:
    """Decides for each layer of a float model what is quantized and how."""

    def __init__(self, model: keras.Model, scheme: BitScheme):
        self._scheme = scheme
        self._consumers = graph.consumers(model)
        self._outputs = {tensor.node.layer.name for tensor in model.outputs}
        layers = graph.topological_layers(model)
        linear = [layer for layer in layers if role(layer) is Role.LINEAR]
        if not linear:
            known = sorted(kind.__name__ for kind in WEIGHTS)
            raise errors.ModelError(
                f"model {model.name!r} has no layer to quantize: it needs at "
                f"least one of {known}."
            )
        self._first_last = {linear[0].name, linear[-1].name}
        self._non_negative: dict[str, bool] = {}
        sources = graph.producers(model)
        for layer in layers:
            self._non_negative[layer.name] = is_non_negative(
                layer, [self._non_negative[p.name] for p in sources[layer.name]]
            )

    def config(self, layer: Layer) -> LayerQuantizeConfig | None:
        """Returns what is quantized of `layer`, or None."""
        weights = {}
        if role(layer) is Role.LINEAR:
            bits = self._scheme.weight_bits_of(
                first_or_last=layer.name in self._first_last
            )
            if bits != FLOAT_BITS:
                weight = WEIGHTS[type(layer)]
                per_axis = self._scheme.per_axis and weight.per_axis
                axes = weight.channel_axes if per_axis else ()
                weights[weight.attribute] = quantizers.LSQWeightQuantizer(
                    bits, axes=axes
                )
        output = None
        if self._stands_on_a_grid(layer):
            output = self.output_quantizer(layer)
        if not weights and output is None:
            return None
        return LayerQuantizeConfig(weights, output)

    def output_quantizer(
        self, layer: Layer
    ) -> quantizers.LSQActivationQuantizer | None:
        """Returns the quantizer of the tensor that `layer` puts out."""
        bits = self._scheme.activation_bits_of(
            first_or_last=self._reaches_first_or_last(layer)
        )
        if bits == FLOAT_BITS:
            return None
        return quantizers.LSQActivationQuantizer(
            bits, signed=not self._non_negative[layer.name]
        )

    def _stands_on_a_grid(self, layer: Layer) -> bool:
        """Whether the layer's output is a tensor of the integer network."""
        kind = role(layer)
        if kind in (Role.SHAPE, Role.UNKNOWN):
            return False
        if layer.name in self._outputs:
            return True
        readers = self._consumers[layer.name]
        if len(readers) != 1:
            return True
        return not is_fused(layer, readers[0])

    def _reaches_first_or_last(self, layer: Layer) -> bool:
        if layer.name in self._outputs:
            return True
        return any(
            reader.name in self._first_last
            or role(reader) is Role.SHAPE
            and self._reaches_first_or_last(reader)
            for reader in self._consumers[layer.name]
        )


def is_fused(layer: Layer, reader: Layer) -> bool:
    """Whether the integer network computes `layer` and `reader` as one.

    Args:
      layer: a float layer.
      reader: the only reader of its output.
    """
    kind = role(layer)
    if kind is Role.LINEAR and not has_activation(layer, "linear"):
        return False
    if kind is Role.LINEAR and role(reader) is Role.NORM:
        return True
    sums = type(layer) is keras.layers.Add
    return role(reader) is Role.RELU and (
        kind in (Role.LINEAR, Role.NORM) or sums
    )


def _annotated(model: keras.Model, planner: _Planner) -> keras.Model:
    """Copies `model`, weights included, with every layer annotated."""
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    copies: dict[str, Layer] = {}

    def call(layer, apply):
        if not isinstance(layer, keras.layers.InputLayer):
            copy = type(layer).from_config(layer.get_config())
            config = planner.config(layer)
            copies[layer.name] = annotate(copy, config) if config else copy
            return apply(copies[layer.name])
        quantizer = planner.output_quantizer(layer)
        if quantizer is None:
            return apply(lambda tensor: tensor)
        identity = keras.layers.Activation("linear", name=f"{layer.name}_input")
        return apply(
            annotate(identity, LayerQuantizeConfig(output_quantizer=quantizer))
        )

    annotated = graph.rebuild(model, call, name=model.name)
    for name, copy in copies.items():
        copy.set_weights(model.get_layer(name).get_weights())
    return annotated


def quantize_model(model: keras.Model, scheme: BitScheme) -> keras.Model:
    """Returns a copy of `model` that computes with quantized values.

    The copy starts from the weights of `model` and trains with plain
    `compile` and `fit`, once `calibrate` has shown it data. Weights of
    convolutions and dense layers are on the grid of their bits, and so is
    every tensor between the operations of the integer network: BatchNorm and
    ReLU are computed with the layer before them and get no grid in between.
    Layers that are not known stay as they are.

    Args:
      model: a flat Functional float model; it is left as it is.
      scheme: the bits.

    Returns:
      A Functional model with the same inputs and outputs.

    Raises:
      ModelError: the model is not flat and Functional, or is quantized
        already, or has nothing to quantize.
    """
    graph.require_functional(model)
    if wrappers(model):
        raise errors.ModelError(
            f"model {model.name!r} is quantized already: pass the float model."
        )
    planner = _Planner(model, scheme)
    with quantizers.allow_uncalibrated():
        return tfmot.quantization.keras.quantize_apply(
            _annotated(model, planner),
            scheme=ExplicitScheme(),
            quantized_layer_name_prefix=PREFIX,
        )


def wrappers(model: keras.Model) -> list[QuantizeWrapper]:
    """Returns the layers that `quantize_model` wrapped, in order."""
    return [
        layer
        for layer in graph.topological_layers(model)
        if isinstance(layer, QuantizeWrapper)
    ]


def calibrate(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Sets the step size of every activation quantizer from data.

    Runs the model eagerly, in inference mode, so that each quantizer sees the
    quantized output of those before it and all replicas of a distributed
    model get the same values.

    Args:
      model: from `quantize_model`.
      dataset: batches of images or of (images, labels); all are used, and a
        few hundred examples are enough.

    Raises:
      ModelError: the model is not quantized.
      DataError: the data set is empty.
    """
    wrapped = wrappers(model)
    if not wrapped:
        raise errors.ModelError(
            f"model {model.name!r} is not quantized: call quantize_model first."
        )
    activation_quantizers = [
        wrapper.quantize_config.output_quantizer
        for wrapper in wrapped
        if wrapper.quantize_config.output_quantizer is not None
    ]
    batches = iter(dataset)
    first = next(batches, None)
    if first is None:
        raise errors.DataError("the calibration data set is empty.")
    for quantizer in activation_quantizers:
        quantizer.observer = quantizers.Observer()
    try:
        for batch in itertools.chain([first], batches):
            images = batch[0] if isinstance(batch, tuple) else batch
            model(images, training=False)
    finally:
        for quantizer in activation_quantizers:
            quantizer.observer = None
