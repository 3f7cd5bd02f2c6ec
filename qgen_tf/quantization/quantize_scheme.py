"""How many bits each part of a model gets."""

from __future__ import annotations

import dataclasses

import tensorflow_model_optimization as tfmot

from qgen_tf import errors

FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True)
class BitScheme:
    """Bit widths of a quantized model.

    Attributes:
      weight_bits: 2..8, or 32 to leave weights float.
      activation_bits: 2..8, or 32 to leave activations float.
      first_last_bits: 2..8; bits of the first and the last layer with weights,
        of the activations that these two read, and of the model's output.
      per_axis: one step size for each output channel of a convolution, else
        one for each weight tensor. Dense layers always have one.

    Raises:
      ConfigError: a number of bits is out of range, or nothing is quantized.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    first_last_bits: int = 8
    per_axis: bool = True

    def __post_init__(self):
        for field in ("weight_bits", "activation_bits", "first_last_bits"):
            bits = getattr(self, field)
            floats = () if field == "first_last_bits" else (FLOAT_BITS,)
            if bits not in (*range(2, 9), *floats):
                raise errors.ConfigError(
                    f"{field} is {bits!r}: choose 2 to 8 bits"
                    f"{', or 32 for float' if floats else ''}."
                )
        if self.weight_bits == self.activation_bits == FLOAT_BITS:
            raise errors.ConfigError(
                "weight_bits and activation_bits are both 32: nothing would "
                "be quantized; use the float model as it is."
            )

    def weight_bits_of(self, *, first_or_last: bool) -> int:
        """Returns the bits of a layer's weights."""
        if first_or_last and self.weight_bits != FLOAT_BITS:
            return self.first_last_bits
        return self.weight_bits

    def activation_bits_of(self, *, first_or_last: bool) -> int:
        """Returns the bits of an activation tensor."""
        if first_or_last and self.activation_bits != FLOAT_BITS:
            return self.first_last_bits
        return self.activation_bits


class IdentityTransform(tfmot.quantization.keras.QuantizeLayoutTransform):
    """Leaves the layers of an annotated model as they are."""

    def apply(self, model, layer_quantize_map):
        """Returns its arguments."""
        return model, layer_quantize_map


class ExplicitRegistry(tfmot.quantization.keras.QuantizeRegistry):
    """Knows no layer: each has its config from its annotation, or none."""

    def supports(self, layer) -> bool:
        """Returns False."""
        return False

    def get_quantize_config(self, layer):
        """Raises a KeyError: no layer is supported."""
        raise KeyError(layer.name)


class ExplicitScheme(tfmot.quantization.keras.QuantizeScheme):
    """Quantizes what is annotated, as it is annotated, and nothing else."""

    def get_layout_transformer(self) -> IdentityTransform:
        """Returns the transform that tfmot applies first."""
        return IdentityTransform()

    def get_quantize_registry(self) -> ExplicitRegistry:
        """Returns the registry that tfmot asks about layers."""
        return ExplicitRegistry()
