"""What of a layer is quantized, and by which quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import tensorflow_model_optimization as tfmot

from qgen_tf.compat import keras

Quantizer: TypeAlias = tfmot.quantization.keras.quantizers.Quantizer


@keras.utils.register_keras_serializable(package="qgen_tf")
class LayerQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """Quantizes some weights of a layer and, it may be, its output.

    tfmot's wrapper reads this once, when it builds the layer, and then in
    every call puts the quantized weights in the place of the float ones. The
    activation function inside a layer needs no quantizer of its own: the
    output quantizer stands behind it.

    Attributes:
      weight_quantizers: name of a weight attribute of the layer (such as
        "kernel") to its quantizer.
      output_quantizer: quantizer of the layer's output, or None.
      override: pattern of the override of the scheme that set the bits, or "".
    """

    def __init__(
        self,
        weight_quantizers: Mapping[str, Quantizer] | None = None,
        output_quantizer: Quantizer | None = None,
        override: str = "",
    ):
        self.weight_quantizers = dict(weight_quantizers or {})
        self.output_quantizer = output_quantizer
        self.override = override

    def get_weights_and_quantizers(self, layer):
        """Returns (variable, quantizer) pairs of `layer`."""
        return [
            (getattr(layer, name), quantizer)
            for name, quantizer in self.weight_quantizers.items()
        ]

    def get_activations_and_quantizers(self, layer):
        """Returns nothing: outputs are quantized behind the activation."""
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Puts quantized weights, in the same order, into `layer`."""
        for name, weight in zip(
            self.weight_quantizers, quantize_weights, strict=True
        ):
            setattr(layer, name, weight)

    def set_quantize_activations(self, layer, quantize_activations):
        """Does nothing; see `get_activations_and_quantizers`."""
        del layer, quantize_activations

    def get_output_quantizers(self, layer):
        """Returns the output quantizer in a list, or an empty list."""
        return [] if self.output_quantizer is None else [self.output_quantizer]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        serialize = keras.utils.legacy.serialize_keras_object
        return {
            "weight_quantizers": {
                name: serialize(quantizer)
                for name, quantizer in self.weight_quantizers.items()
            },
            "output_quantizer": self.output_quantizer
            and serialize(self.output_quantizer),
            "override": self.override,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LayerQuantizeConfig:
        """Returns the config that `get_config` described."""
        deserialize = keras.utils.legacy.deserialize_keras_object
        return cls(
            {
                name: deserialize(quantizer)
                for name, quantizer in config["weight_quantizers"].items()
            },
            config["output_quantizer"]
            and deserialize(config["output_quantizer"]),
            config["override"],
        )
