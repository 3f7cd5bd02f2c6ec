"""Which weights of a network are rounded, and to which grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Sized

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.arguments import chosen_weights
from qgen_tf.measures.perturbations import (
    Variables,
    deployed_network,
    measured_model,
)
from qgen_tf.quantization import (
    FLOAT_BITS,
    BitScheme,
    InferenceModel,
    WeightGrid,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.quantize import (
    QuantizeWrapper,
    unwrapped,
    wrappers,
)
from qgen_tf.quantization.quantize_registry import WEIGHTS

# of the quantizers that round the weights themselves and not a function of
# them: the steps on which their training starts
STEP_RULES = {
    "lsq": "the smaller of 2 mean|w| / sqrt(Q) and max|w| / Q",
    "minmax": "max|w| / Q",
}


class NoGridError(errors.ConfigError):
    """A measure of rounding was asked of a model that rounds no weight."""


@dataclasses.dataclass(frozen=True)
class RoundedWeight:
    """A weight of a network, and the grid that it is rounded to.

    Attributes:
      layer: name of the layer, without the prefix of a quantized one.
      variable: the weight.
      grid: of its shape.
    """

    layer: str
    variable: tf.Variable
    grid: WeightGrid

    @property
    def widths(self) -> np.ndarray:
        """The bin width of each weight, float64 in its shape.

        It is 0 for a weight of zero that stays zero: rounding adds nothing to
        it, whatever the step size of a channel that is zero may be.
        """
        noisy = (self.grid.latent != 0.0) | (self.grid.levels != 0)
        return noisy * self.grid.bin_width.astype(np.float64)

    @property
    def noise_power(self) -> float:
        """The squared norm of the noise that rounding adds."""
        noise = self.grid.latent.astype(np.float64) - self.grid.values
        return float((noise**2).sum())


def rounded_weights(
    model: keras.Model,
    *,
    point: str,
    variables: Variables,
    num_bits: int | None = None,
    step_rule: str = "lsq",
) -> tuple[keras.Model, list[RoundedWeight]]:
    """Returns the network that a measure is taken of, and its rounded weights.

    Args:
      model: as trained, float or quantized.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network, its weights of interest; those without a
        grid are left out.
      num_bits: of the grids that a float model would be rounded to, at first;
        None for the grids that a quantized model has.
      step_rule: of the grids at `num_bits`, a key of `STEP_RULES`; Q is the
        largest level, w a channel of a convolution or a whole dense kernel.

    Raises:
      ConfigError: a setting is out of range, or no weight has a grid.
      ModelError: `num_bits` is asked of a quantized model, or, at
        `point="latent"`, of one whose layers are taken apart when deployed.
    """
    if num_bits is not None:
        rounded = _rounded(model, num_bits, step_rule)
    if point == "deployed":
        deployed = deployed_network(model)
        network, grids = deployed.model, deployed.weight_grids
        if num_bits is not None:
            grids = inference_model(rounded).weight_grids
    else:
        network = measured_model(model, point)
        grids = _trained_grids(model if num_bits is None else rounded)
    owners = {unwrapped(layer).name: layer for layer in network.layers}
    if missing := grids.keys() - owners:
        raise errors.ModelError(
            f"model {model.name!r} computes {sorted(missing)} inside of other "
            'layers until it is deployed: use point="deployed".'
        )
    chosen = {id(variable) for variable in chosen_weights(network, variables)}
    found = [
        RoundedWeight(name, weight_of(owners[name]), grid)
        for name, grid in grids.items()
        if id(weight_of(owners[name])) in chosen
    ]
    require_grids(model, found)
    return network, found


def starting_grids(
    model: keras.Model | InferenceModel,
    num_bits: int,
    *,
    step_rule: str = "lsq",
) -> dict[str, WeightGrid]:
    """Returns the grids on which training would start from a float model.

    They have the same bits in every layer, the first and the last included.

    Args:
      model: a Functional float model, or its deployed network.
      num_bits: b, in 1..8.
      step_rule: see `rounded_weights`.

    Returns:
      As in `InferenceModel.weight_grids`, with BatchNorm folded.

    Raises:
      ConfigError: a setting is out of range.
      ModelError: the model is not Functional, or is quantized already.
    """
    return inference_model(_rounded(model, num_bits, step_rule)).weight_grids


def weight_of(layer: keras.layers.Layer) -> tf.Variable:
    """Returns the weight that is rounded, of a plain or a wrapped layer."""
    if isinstance(layer, QuantizeWrapper) and layer._weight_vars:
        ((variable, *_),) = layer._weight_vars
        return variable
    inner = unwrapped(layer)
    return getattr(inner, WEIGHTS[type(inner)].attribute)


def _rounded(
    model: keras.Model | InferenceModel, num_bits: int, step_rule: str
) -> keras.Model:
    if isinstance(model, InferenceModel):
        if model.weight_grids:
            raise errors.ModelError(
                f"{model.name!r} is on its grids already: leave num_bits away."
            )
        model = model.model
    if step_rule not in STEP_RULES:
        raise errors.ConfigError(
            f"step_rule {step_rule!r} is unknown: choose one of "
            f"{list(STEP_RULES)}."
        )
    scheme = BitScheme(
        num_bits,
        FLOAT_BITS,
        quantizer=step_rule,
        overrides=(("*", num_bits, FLOAT_BITS),),
    )
    return quantize_model(model, scheme)


def _trained_grids(model: keras.Model) -> dict[str, WeightGrid]:
    """Returns the grids under a live quantizer, BatchNorm not folded."""
    return {
        wrapper.layer.name: quantizer.grid(latent, variables)
        for wrapper in wrappers(model)
        for latent, quantizer, variables in wrapper._weight_vars
    }


def require_grids(model: keras.Model, found: Sized) -> None:
    """Raises a NoGridError if there is no weight with a grid.

    Args:
      model: as it was passed.
      found: the weights with a grid.
    """
    if not found:
        raise NoGridError(
            f"model {model.name!r} has no weight on a grid among those that "
            "are chosen: say num_bits, to ask what rounding would do to a "
            "float model."
        )
