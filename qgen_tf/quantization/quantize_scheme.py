"""How many bits each part of a model gets."""

from __future__ import annotations

import dataclasses
import fnmatch
import numbers
from collections.abc import Iterable
from typing import TypeAlias

import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.quantization.quantizers import QUANTIZERS

Override: TypeAlias = tuple[str, int | None, int | None]

FLOAT_BITS = 32
_WEIGHT_BITS = (*range(1, 9), FLOAT_BITS)
_ACTIVATION_BITS = (*range(2, 9), FLOAT_BITS)


@dataclasses.dataclass(frozen=True)
class BitScheme:
    """Bit widths and quantizers of a quantized model.

    Attributes:
      weight_bits: 1..8, or 32 to leave weights float. One bit is the sign,
        times a step size.
      activation_bits: 2..8, or 32 to leave activations float.
      first_last_bits: 2..8; bits of the first and the last layer with weights,
        of the activations that these two read, and of what the model reads
        and puts out.
      per_axis: one step size for each output channel of a convolution, else
        one for each weight tensor.
      per_axis_dense: whether `per_axis` holds for dense layers, too.
      quantizer: a key of `QUANTIZERS`.
      overrides: (pattern, weight_bits, activation_bits), for the layers whose
        name matches the pattern (`*` stands for anything, `?` for one
        character); the first one that matches decides, before
        `first_last_bits`. None leaves a number of bits as it would be. The
        activations are those that the layer puts out, behind the BatchNorm and
        ReLU that are fused with it.
      step_learning_rate: learning rate of learned step sizes, in units of that
        of the weights.

    Raises:
      ConfigError: a value is out of range, or nothing is quantized.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    first_last_bits: int = 8
    per_axis: bool = True
    per_axis_dense: bool = False
    quantizer: str = "lsq"
    overrides: tuple[Override, ...] = ()
    step_learning_rate: float = 1.0

    def __post_init__(self):
        _require_bits("weight_bits", self.weight_bits, _WEIGHT_BITS)
        _require_bits("activation_bits", self.activation_bits, _ACTIVATION_BITS)
        _require_bits(
            "first_last_bits", self.first_last_bits, _ACTIVATION_BITS[:-1]
        )
        for field in ("per_axis", "per_axis_dense"):
            if not isinstance(getattr(self, field), bool):
                raise errors.ConfigError(
                    f"{field} is {getattr(self, field)!r}: write True or False."
                )
        if self.quantizer not in list(QUANTIZERS):
            raise errors.ConfigError(
                f"quantizer {self.quantizer!r} is unknown: choose one of "
                f"{list(QUANTIZERS)}."
            )
        rate = self.step_learning_rate
        if not (errors.is_finite(rate) and rate > 0):
            raise errors.ConfigError(
                f"step_learning_rate is {rate!r}: it must be a number above 0."
            )
        if not isinstance(self.overrides, tuple | list):
            raise errors.ConfigError(
                f"overrides is {self.overrides!r}: write a tuple of (pattern, "
                "weight_bits, activation_bits), or () for none."
            )
        overrides = tuple(_override(entry) for entry in self.overrides)
        object.__setattr__(self, "overrides", overrides)
        pairs = [
            (self.weight_bits, self.activation_bits),
            *(bits for _, *bits in overrides),
        ]
        if {bits for pair in pairs for bits in pair} - {None} == {FLOAT_BITS}:
            raise errors.ConfigError(
                "weight_bits and activation_bits are both 32: nothing would "
                "be quantized; use the float model as it is."
            )

    @property
    def is_weight_only(self) -> bool:
        """Whether activations are float, unless an override says otherwise."""
        return self.activation_bits == FLOAT_BITS

    def weight_bits_of(self, name: str, *, first_or_last: bool) -> int:
        """Returns the bits of a layer's weights."""
        override = self.override_of([name])
        if override and override[1] is not None:
            return override[1]
        if first_or_last and self.weight_bits != FLOAT_BITS:
            return self.first_last_bits
        return self.weight_bits

    def activation_bits_of(
        self, names: Iterable[str], *, first_or_last: bool
    ) -> int:
        """Returns the bits of an activation tensor.

        Args:
          names: of the layers that compute it as one.
          first_or_last: whether the first or the last layer reads it, or it is
            the model's output.
        """
        override = self.override_of(names)
        if override and override[2] is not None:
            return override[2]
        if first_or_last and self.activation_bits != FLOAT_BITS:
            return self.first_last_bits
        return self.activation_bits

    def override_of(self, names: Iterable[str]) -> Override | None:
        """Returns the first override that matches one of the names."""
        names = list(names)
        for override in self.overrides:
            if any(fnmatch.fnmatchcase(name, override[0]) for name in names):
                return override
        return None


def _require_bits(field: str, bits: object, allowed: tuple[int, ...]) -> None:
    is_whole = isinstance(bits, numbers.Integral) and not isinstance(bits, bool)
    if not is_whole or bits not in allowed:
        floats = ", or 32 for float" if FLOAT_BITS in allowed else ""
        raise errors.ConfigError(
            f"{field} is {bits!r}: choose {allowed[0]} to 8 bits{floats}."
        )


def _override(entry: object) -> Override:
    """Returns an override with its types checked."""
    if (
        not isinstance(entry, tuple | list)
        or len(entry) != 3
        or not isinstance(entry[0], str)
    ):
        raise errors.ConfigError(
            f"overrides has {entry!r}: write (pattern, weight_bits, "
            "activation_bits), such as ('block1_*', 8, 8)."
        )
    pattern, weight_bits, activation_bits = entry
    where = f"of override {pattern!r}"
    if weight_bits is not None:
        _require_bits(f"weight_bits {where}", weight_bits, _WEIGHT_BITS)
    if activation_bits is not None:
        _require_bits(
            f"activation_bits {where}", activation_bits, _ACTIVATION_BITS
        )
    return pattern, weight_bits, activation_bits


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
