"""Turns a float model into one that trains with quantized weights."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.quantization.keras import (
    QuantizeWrapperV2 as QuantizeWrapper,
)

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph, quantizers
from qgen_tf.quantization.aligned_norm import AlignedLayerNorm
from qgen_tf.quantization.primitives import primitive_model
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig
from qgen_tf.quantization.quantize_plan import Plan
from qgen_tf.quantization.quantize_registry import Role, role
from qgen_tf.quantization.quantize_scheme import BitScheme, ExplicitScheme

Layer: TypeAlias = keras.layers.Layer

PREFIX = "quant_"
_annotate = tfmot.quantization.keras.quantize_annotate_layer


def _annotated(model: keras.Model, plan: Plan) -> keras.Model:
    """Copies `model`, weights included, with every layer annotated."""
    copies: dict[str, Layer] = {}

    def call(layer, apply):
        if isinstance(layer, keras.layers.InputLayer):
            name = f"{layer.name}_input"
            return apply(lambda tensor: _on_a_grid(tensor, plan, layer, name))
        kind = AlignedLayerNorm if role(layer) is Role.NORM else type(layer)
        copy = kind.from_config(layer.get_config())
        config = plan.config(layer)
        copies[layer.name] = _annotate(copy, config) if config else copy
        outputs = apply(copies[layer.name])
        if plan.enters_the_integer_network(layer):
            name = f"{layer.name}_output"
            outputs = _on_a_grid(outputs, plan, layer, name)
        return outputs

    annotated = graph.rebuild(model, call, name=model.name)
    for name, copy in copies.items():
        graph.copy_weights(model.get_layer(name), copy)
    return annotated


def _on_a_grid(tensor: Any, plan: Plan, layer: Layer, name: str) -> Any:
    """Puts a grid behind a layer that is not quantized itself."""
    quantizer = plan.output_quantizer(layer)
    if quantizer is None:
        return tensor
    identity = keras.layers.Activation("linear", name=name)
    config = LayerQuantizeConfig(output_quantizer=quantizer)
    return _annotate(identity, config)(tensor)


def quantize_model(
    model: keras.Model, scheme: BitScheme, *, strict: bool = False
) -> keras.Model:
    """Returns a copy of `model` that computes with quantized values.

    The copy starts from the weights of `model` and trains with plain
    `compile` and `fit`, once `calibrate` has shown it data. Weights of
    convolutions and dense layers are on the grid of their bits, and so is
    every tensor between the operations of the integer network: BatchNorm and
    ReLU are computed with the layer before them and get no grid in between.
    Layers that are not known stay as they are and compute in float. Models
    inside of `model` are opened, composite layers are taken apart: see
    `primitive_model`.

    Args:
      model: a Functional float model; it is left as it is.
      scheme: the bits.
      strict: whether a layer that is not known is an error.

    Returns:
      A flat Functional model with the same inputs and outputs.

    Raises:
      ModelError: the model is not Functional, or is quantized already, or has
        nothing to quantize, or `strict` forbids a layer.
      ConfigError: an override of the scheme matches no layer, or it is no
        `BitScheme`.
    """
    graph.require_functional(model)
    if not isinstance(scheme, BitScheme):
        raise errors.ConfigError(
            f"the scheme is {scheme!r}: pass a BitScheme, such as "
            "qgen_tf.BitScheme(weight_bits=4, activation_bits=8)."
        )
    if wrappers(model):
        raise errors.ModelError(
            f"model {model.name!r} is quantized already: pass the float model."
        )
    primitive = primitive_model(model)
    layers = graph.topological_layers(primitive)
    if strict:
        _require_known(layers)
    plan = Plan(primitive, scheme)
    plan.require_overrides_to_match(layers)
    with quantizers.allow_uncalibrated():
        return tfmot.quantization.keras.quantize_apply(
            _annotated(primitive, plan),
            scheme=ExplicitScheme(),
            quantized_layer_name_prefix=PREFIX,
        )


def _require_known(layers: list[Layer]) -> None:
    unknown = [
        f"{layer.name!r} ({type(layer).__name__})"
        for layer in layers
        if role(layer) is Role.UNKNOWN
        and not isinstance(layer, keras.layers.InputLayer)
    ]
    if unknown:
        raise errors.ModelError(
            f"strict: these layers are not known: {', '.join(unknown)}; "
            "replace them, or leave them in float with strict=False."
        )


def unwrapped(layer: Layer) -> Layer:
    """Returns the layer inside of a wrapper, or the layer itself."""
    return layer.layer if isinstance(layer, QuantizeWrapper) else layer


def wrappers(model: keras.Model) -> list[QuantizeWrapper]:
    """Returns the layers that `quantize_model` wrapped, in order."""
    return [
        layer
        for layer in graph.topological_layers(model)
        if isinstance(layer, QuantizeWrapper)
    ]
