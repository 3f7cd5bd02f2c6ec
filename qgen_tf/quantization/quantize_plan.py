"""Which parts of a model are quantized, at which bits."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from typing import Any, TypeAlias

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph, quantizers
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig
from qgen_tf.quantization.quantize_registry import (
    CONSTANTS,
    WEIGHTS,
    Role,
    fixed_grid,
    is_fused,
    role,
    signed,
)
from qgen_tf.quantization.quantize_scheme import FLOAT_BITS, BitScheme

Layer: TypeAlias = keras.layers.Layer

_INPUT_BITS = 8  # at fewer, a step size that trains pays
_EXACT_BITS = 8  # of constants, and of exponents


class Plan:
    """Decides for each layer of a primitive model what is quantized and how."""

    def __init__(self, model: keras.Model, scheme: BitScheme):
        self._scheme = scheme
        self._family = quantizers.QUANTIZERS[scheme.quantizer]
        self._consumers = graph.consumers(model)
        self._producers = graph.producers(model)
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
        self._signed: dict[str, bool | None] = {}
        for layer in layers:
            self._signed[layer.name] = signed(
                layer,
                [self._signed[p.name] for p in self._producers[layer.name]],
            )

    def config(self, layer: Layer) -> LayerQuantizeConfig | None:
        """Returns what is quantized of `layer`, or None."""
        weights = {}
        if role(layer) is Role.LINEAR:
            bits = self._scheme.weight_bits_of(
                layer.name, first_or_last=layer.name in self._first_last
            )
            if bits != FLOAT_BITS:
                weight = WEIGHTS[type(layer)]
                per_axis = self._scheme.per_axis and (
                    weight.per_axis or self._scheme.per_axis_dense
                )
                axes = weight.channel_axes if per_axis else ()
                weights[weight.attribute] = self._quantizer(
                    self._family.weights, bits, axes=axes
                )
        elif role(layer) is Role.CONSTANT and not self._scheme.is_weight_only:
            weights[CONSTANTS[type(layer)]] = self._quantizer(
                self._family.weights, _EXACT_BITS, axes=()
            )
        output = None
        if self._stands_on_a_grid(layer) and role(layer) is not Role.UNKNOWN:
            output = self.output_quantizer(layer)
        if not weights and output is None:
            return None
        override = self._scheme.override_of(self._computed_as_one(layer))
        return LayerQuantizeConfig(
            weights, output, override[0] if override else ""
        )

    def output_quantizer(
        self, layer: Layer
    ) -> quantizers.ActivationQuantizer | None:
        """Returns the quantizer of the tensor that `layer` puts out."""
        bits = self._scheme.activation_bits_of(
            self._computed_as_one(layer),
            first_or_last=self._reaches_first_or_last(layer),
        )
        if bits == FLOAT_BITS:
            return None
        if self._is_exponent(layer):
            bits = _EXACT_BITS
        if role(layer) is Role.FIXED:
            grid = fixed_grid(layer)
            return quantizers.FixedActivationQuantizer(
                8, step_size=grid.step_size, zero_point=grid.zero_point
            )
        kind = self._family.activations
        if isinstance(layer, keras.layers.InputLayer) and bits == _INPUT_BITS:
            kind = self._family.inputs
        return self._quantizer(kind, bits, signed=self._signed[layer.name])

    def enters_the_integer_network(self, layer: Layer) -> bool:
        """Whether the output of a layer left alone goes on to one that is not.

        The layer itself is not touched; the grid behind it is a layer of its
        own.
        """
        return role(layer) is Role.UNKNOWN and any(
            role(reader) is not Role.UNKNOWN
            for reader in self._consumers[layer.name]
        )

    def require_overrides_to_match(self, layers: list[Layer]) -> None:
        """Raises a ConfigError if an override matches no layer that it can."""
        names = set()
        for layer in layers:
            kind = role(layer)
            if kind is Role.LINEAR or (
                kind is not Role.UNKNOWN and self._stands_on_a_grid(layer)
            ):
                names.update(self._computed_as_one(layer))
        for pattern, *_ in self._scheme.overrides:
            if not fnmatch.filter(names, pattern):
                close = difflib.get_close_matches(pattern, names, n=3, cutoff=0)
                raise errors.ConfigError(
                    f"the override {pattern!r} matches no layer that can "
                    f"be quantized; names are like {sorted(close)}."
                )

    def _quantizer(self, kind: type, bits: int, **settings: Any) -> Any:
        if "learning_rate_multiplier" in inspect.signature(kind).parameters:
            settings["learning_rate_multiplier"] = (
                self._scheme.step_learning_rate
            )
        return kind(bits, **settings)

    def _stands_on_a_grid(self, layer: Layer) -> bool:
        """Whether the layer's output is a tensor of the integer network."""
        if role(layer) is Role.SHAPE:
            return False
        if layer.name in self._outputs:
            return True
        readers = self._consumers[layer.name]
        if len(readers) != 1:
            return True
        return not is_fused(layer, readers[0])

    def _computed_as_one(self, layer: Layer) -> list[str]:
        """Returns the names of `layer` and of those fused into it."""
        names = [layer.name]
        sources = self._producers[layer.name]
        while len(sources) == 1 and (
            len(self._consumers[sources[0].name]) == 1
            and sources[0].name not in self._outputs
            and is_fused(sources[0], layer)
        ):
            layer = sources[0]
            names.append(layer.name)
            sources = self._producers[layer.name]
        return names

    def _is_exponent(self, layer: Layer) -> bool:
        """Whether softmax reads the output: an error there is a factor."""
        return any(
            isinstance(reader, keras.layers.Softmax)
            for reader in self._consumers[layer.name]
        )

    def _reaches_first_or_last(self, layer: Layer) -> bool:
        """Whether the output is at an end of the model, or read there."""
        is_input = isinstance(layer, keras.layers.InputLayer)
        if is_input or layer.name in self._outputs:
            return True
        return any(
            reader.name in self._first_last
            or role(reader) in (Role.SHAPE, Role.FIXED)
            and self._reaches_first_or_last(reader)
            for reader in self._consumers[layer.name]
        )
