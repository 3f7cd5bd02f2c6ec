"""Which layers deserve more bits: the least loss within a budget of bytes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy.optimize
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.hessian import LayerTrace, layer_traces
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.quantization import (
    FLOAT_BITS,
    BitScheme,
    WeightGrid,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.quantize_registry import WEIGHTS

_BITS_A_BYTE = 8
_NO_RISE = "the estimate is not above zero: taken as zero"


@dataclasses.dataclass(frozen=True)
class BitSuggestion:
    """Bits for each layer of a float model.

    Attributes:
      scheme: for `quantize_model`; an override for each layer with weights.
      table: a row for each of these layers: `layer`, `num_weights`, `trace` of
        the Hessian with its `standard_error`, the chosen `weight_bits` with
        their `num_bytes` and `predicted_loss_rise` in nats, the rise at each
        choice of b bits as `rise_at_<b>_bits`, and a `note`.
      num_bytes: of all quantized weights.
      budget: largest number of bytes that was allowed.
      predicted_loss_rise: sum over layers, in nats.
    """

    scheme: BitScheme
    table: pd.DataFrame
    num_bytes: float
    budget: float
    predicted_loss_rise: float


@errors.typed
def suggest_bits(
    model: keras.Model,
    dataset: tf.data.Dataset,
    budget: float,
    *,
    choices: Sequence[int] = (2, 3, 4, 8),
    activation_bits: int = 8,
    per_axis: bool = True,
    quantizer: str = "lsq",
    loss_fn: LossFn = cross_entropy,
    num_probes: int = 32,
    seed: int = 0,
) -> BitSuggestion:
    """Suggests the bits of each layer's weights, within a budget of bytes.

    To second order, rounding noise that is uniform over bins of width s and
    independent of the weights raises the loss by

        sum over weights i of  s_i^2 / 24 * H_ii

    which is `s^2 / 24 * Tr(H)` for each layer that has one step size. H is the
    Hessian of the float network with its BatchNorm folded, whose weights are
    those that a grid is laid over, and s_i the bin width on it that training
    would start with. Of all choices that fit the budget the one with the
    smallest sum is taken; it is found exactly, as a knapsack with multiple
    choice.

    The prediction is for weights before they train on their grids, and knows
    nothing of noise in activations. At 2 bits uniform noise is a rough model.

    Args:
      model: a Functional float model, trained.
      dataset: batches of (images, int labels), cached; a part of the training
        set without augmentation.
      budget: bytes for all quantized weights: the sum of weights * bits / 8.
        Biases and step sizes are not counted.
      choices: bits that a layer may get, each in 1..8.
      activation_bits: see `BitScheme`.
      per_axis: see `BitScheme`.
      quantizer: see `BitScheme`.
      loss_fn: (labels, logits) to the loss of each example.
      num_probes: of the traces; see `layer_traces`.
      seed: of the traces.

    Raises:
      ConfigError: the budget is too small, or a setting is out of range.
      ModelError: the model cannot be quantized or differentiated twice.
    """
    if (
        not isinstance(choices, Iterable)
        or not set(choices)
        or FLOAT_BITS in set(choices)
    ):
        raise errors.ConfigError(
            f"choices is {choices}: name at least one of 1 to 8 bits, such as "
            "(4, 8)."
        )
    choices = sorted(set(choices))
    grids = {
        bits: _grids(model, bits, per_axis=per_axis, quantizer=quantizer)
        for bits in choices
    }
    sizes = {name: grid.levels.size for name, grid in grids[choices[0]].items()}
    _require_room(budget, sum(sizes.values()) * choices[0])
    traces = layer_traces(
        inference_model(model).model,
        dataset,
        loss_fn,
        variables=lambda network: [_weight(network, name) for name in sizes],
        num_probes=num_probes,
        seed=seed,
    )
    rises = np.array(
        [
            [_predicted_rise(trace, grids[b][trace.layer]) for b in choices]
            for trace in traces
        ]
    )
    picks = _cheapest(rises, np.outer([*sizes.values()], choices), budget)
    table = _table(traces, rises, choices, picks)
    return BitSuggestion(
        scheme=_scheme(table, activation_bits, per_axis, quantizer),
        table=table,
        num_bytes=float(table["num_bytes"].sum()),
        budget=budget,
        predicted_loss_rise=float(table["predicted_loss_rise"].sum()),
    )


def _grids(
    model: keras.Model, bits: int, *, per_axis: bool, quantizer: str
) -> dict[str, WeightGrid]:
    """Returns the grids on which training would start at these bits."""
    scheme = BitScheme(
        bits,
        FLOAT_BITS,
        per_axis=per_axis,
        quantizer=quantizer,
        overrides=(("*", bits, FLOAT_BITS),),
    )
    return inference_model(quantize_model(model, scheme)).weight_grids


def _weight(network: keras.Model, name: str) -> tf.Variable:
    layer = network.get_layer(name)
    return getattr(layer, WEIGHTS[type(layer)].attribute)


def _predicted_rise(trace: LayerTrace, grid: WeightGrid) -> float:
    """Returns the sum over weights of `s_i^2 / 24 * H_ii`, at least zero.

    A weight of zero that stays zero has no noise. A sum below zero is the
    estimate of a small one, or no minimum: noise is not to be counted on.
    """
    noisy = (grid.latent != 0.0) | (grid.levels != 0)
    squares = noisy * grid.bin_width.astype(np.float64) ** 2
    return max(float((squares * trace.diagonal).sum() / 24.0), 0.0)


def _require_room(budget: float, smallest_bits: int) -> None:
    if not budget * _BITS_A_BYTE >= smallest_bits:
        raise errors.ConfigError(
            f"a budget of {budget} bytes is too small: the smallest possible "
            f"number is {math.ceil(smallest_bits / _BITS_A_BYTE)}."
        )


def _cheapest(
    rises: np.ndarray, num_bits: np.ndarray, budget: float
) -> np.ndarray:
    """Returns the choice for each layer with the least sum of rises.

    Room that is left goes to layers that lose nothing by more bits.

    Args:
      rises: of the loss, [layers, choices].
      num_bits: of all weights of a layer, [layers, choices], ascending.
      budget: in bytes; enough for the first choice in all layers.
    """
    room = math.floor(min(budget * _BITS_A_BYTE, num_bits[:, -1].sum()))
    num_layers, num_choices = rises.shape
    # the solver stops at an absolute gap: make the result at least one
    scale = rises.min(axis=1).sum() or rises.max() or 1.0
    one_each = np.kron(np.eye(num_layers), np.ones(num_choices))
    result = scipy.optimize.milp(
        rises.reshape(-1) / scale,
        integrality=np.ones(rises.size),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=[
            scipy.optimize.LinearConstraint(one_each, 1, 1),
            scipy.optimize.LinearConstraint(num_bits.reshape(1, -1), ub=room),
        ],
        options={"mip_rel_gap": 0.0},
    )
    picks = result.x.reshape(rises.shape).argmax(axis=1)
    room -= num_bits[np.arange(num_layers), picks].sum()
    for layer, pick in enumerate(picks):
        extra = num_bits[layer] - num_bits[layer, pick]
        free = (extra <= room) & (rises[layer] <= rises[layer, pick])
        picks[layer] = np.flatnonzero(free).max()
        room -= extra[picks[layer]]
    return picks


def _table(
    traces: Sequence[LayerTrace],
    rises: np.ndarray,
    choices: Sequence[int],
    picks: np.ndarray,
) -> pd.DataFrame:
    """Returns the table of a `BitSuggestion`."""
    table = pd.DataFrame(
        [
            {
                "layer": trace.layer,
                "num_weights": trace.num_weights,
                "trace": trace.trace,
                "standard_error": trace.standard_error,
                "weight_bits": choices[pick],
                "num_bytes": trace.num_weights * choices[pick] / _BITS_A_BYTE,
                "predicted_loss_rise": row[pick],
            }
            for trace, row, pick in zip(traces, rises, picks, strict=True)
        ]
    )
    for bits, column in zip(choices, rises.T, strict=True):
        table[f"rise_at_{bits}_bits"] = column
    table["note"] = np.where((rises > 0.0).all(axis=1), "", _NO_RISE)
    return table


def _scheme(
    table: pd.DataFrame, activation_bits: int, per_axis: bool, quantizer: str
) -> BitScheme:
    return BitScheme(
        activation_bits=activation_bits,
        per_axis=per_axis,
        quantizer=quantizer,
        overrides=tuple(
            (layer, int(bits), None)
            for layer, bits in zip(
                table["layer"], table["weight_bits"], strict=True
            )
        ),
    )
