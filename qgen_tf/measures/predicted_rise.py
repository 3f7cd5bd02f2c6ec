"""The rise in loss that rounding causes: predicted, simulated, measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.hessian import mean_and_error
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.noise import uniform_noise
from qgen_tf.measures.perturbations import (
    Neighbourhood,
    deployed_network,
    neighbourhood,
    preserved,
)
from qgen_tf.measures.regularization import regularization_terms
from qgen_tf.measures.rounding import (
    RoundedWeight,
    require_grids,
    starting_grids,
    weight_of,
)
from qgen_tf.quantization import InferenceModel

ALL_LAYERS = "all layers"


@dataclasses.dataclass(frozen=True)
class LossRise:
    """What rounding a layer alone, or all layers, does to the loss, in nats.

    All start from the weights before rounding. The predictions and the
    simulation are means over noise that is uniform and independent of the
    weights. What is measured is one noise, that of rounding: it differs from
    the mean by its product with the gradient, some `noise_deviation`, and by
    what the model of the noise gets wrong.

    Attributes:
      layer: name, or `ALL_LAYERS`.
      num_bits: b; None for layers of different bits.
      step_size: root of the mean squared bin width of the weights.
      hessian: prediction `sum of s_i^2 / 24 * H_ii`.
      hessian_error: its standard error, over probes.
      gauss_newton: the same with the Gauss-Newton matrix.
      gauss_newton_error: its standard error, over probes.
      simulated: mean rise under uniform noise.
      simulated_error: its standard error, over draws.
      noise_deviation: standard deviation of the rise under one noise.
      measured: rise of the rounded weights.
    """

    layer: str
    num_bits: int | None
    step_size: float
    hessian: float
    hessian_error: float
    gauss_newton: float
    gauss_newton_error: float
    simulated: float
    simulated_error: float
    noise_deviation: float
    measured: float


@errors.typed
def loss_rises(
    model: keras.Model | InferenceModel,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    num_bits: Sequence[int] | None = None,
    step_rule: str = "lsq",
    num_probes: int = 16,
    num_draws: int = 10,
    layerwise: bool = True,
    seed: int = 0,
) -> list[LossRise]:
    """Compares the predicted rise in loss with the simulated and the measured.

    L is the loss of the deployed network, its activations quantized if the
    model quantizes them, and w its weights before they were rounded to Q(w):

        predicted  sum of s_i^2 / 24 * C_ii(w), see `regularization`
        simulated  E[L(w + D)] - L(w) with D_i uniform on [-s_i/2, s_i/2]
        measured   L(Q(w)) - L(w)

    for each layer alone, the others before rounding, and for all together.
    Each draw of D is used with both signs, which cancels the gradient and
    every odd order.

    What the prediction leaves out, beside higher orders: kinks. Where noise
    carries a unit across the kink of its ReLU, or an activation to another
    level of its grid, the loss bends in a way that no derivative at w shows.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation. It is read `2 * num_draws + 1` times for each
        row.
      loss_fn: (labels, logits) to the loss of each example.
      num_bits: each b to which a float model is rounded as it is, without
        training; None for the grids of a quantized model.
      step_rule: of the bin widths at `num_bits`; see `rounded_weights`.
      num_probes: of the predictions, at least 2.
      num_draws: of the simulation, at least 2.
      layerwise: whether each layer has a row, and not only all of them.
      seed: of both.

    Returns:
      For each number of bits a row for each layer, in their order, and one
      for all of them.

    Raises:
      ConfigError: a setting is out of range, or no weight has a grid.
      DataError: the data set is empty.
      ModelError: the loss is not finite, with noise or without, or has no
        second derivative, or `num_bits` is asked of a quantized model.
    """
    is_empty = num_bits is not None and not (
        isinstance(num_bits, Sequence) and len(num_bits)
    )
    if num_draws < 2 or is_empty:
        raise errors.ConfigError(
            "loss_rises needs num_draws >= 2 and at least one of num_bits, "
            f"such as (4, 8), not {num_draws} and {num_bits}."
        )
    network, roundings = _roundings(model, num_bits, step_rule)
    variables = [weight.variable for weight in roundings[0]]

    def chosen(network: keras.Model) -> list[tf.Variable]:
        del network
        return variables

    with preserved(variables):
        for weight in roundings[0]:
            weight.variable.assign(weight.grid.latent)
        samples = {
            curvature: regularization_terms(
                network,
                dataset,
                loss_fn,
                chosen,
                roundings,
                curvature=curvature,
                num_probes=num_probes,
                seed=seed,
            )
            for curvature in ("hessian", "gauss_newton")
        }
        with neighbourhood(
            network, dataset, loss_fn, point="latent", variables=chosen
        ) as near:
            return [
                _rise(
                    near,
                    layer,
                    weights,
                    among,
                    {name: terms[index] for name, terms in samples.items()},
                    num_draws,
                    seed,
                )
                for index, weights in enumerate(roundings)
                for layer, among in _alone_and_together(weights)
                if layerwise or layer == ALL_LAYERS
            ]


def _roundings(
    model: keras.Model | InferenceModel,
    num_bits: Sequence[int] | None,
    step_rule: str,
) -> tuple[keras.Model, list[list[RoundedWeight]]]:
    """Returns the deployed network, and its weights on each set of grids."""
    deployed = deployed_network(model)
    grids = [deployed.weight_grids]
    if num_bits is not None:
        grids = [
            starting_grids(model, bits, step_rule=step_rule)
            for bits in num_bits
        ]
    require_grids(model, grids[0])
    return deployed.model, [
        [
            RoundedWeight(name, weight_of(deployed.model.get_layer(name)), grid)
            for name, grid in weight_grids.items()
        ]
        for weight_grids in grids
    ]


def _alone_and_together(
    weights: Sequence[RoundedWeight],
) -> list[tuple[str, list[int]]]:
    """Returns names and numbers of the weights that are rounded in each row."""
    alone = [(weight.layer, [k]) for k, weight in enumerate(weights)]
    return [*alone, (ALL_LAYERS, [*range(len(weights))])]


def _rise(
    near: Neighbourhood,
    layer: str,
    weights: Sequence[RoundedWeight],
    among: Sequence[int],
    terms: dict[str, np.ndarray],
    num_draws: int,
    seed: int,
) -> LossRise:
    """Simulates and measures the rounding of some of the weights.

    Args:
      near: at the weights before rounding.
      layer: name of the row.
      weights: all.
      among: numbers of those that are rounded.
      terms: of each curvature; see `regularization_terms`.
      num_draws: see `loss_rises`.
      seed: likewise.
    """
    rounded = [weights[index] for index in among]
    widths = [
        weight.widths * (index in among) for index, weight in enumerate(weights)
    ]
    draws = np.empty((num_draws, 2))
    for draw in range(num_draws):
        noise = uniform_noise(widths, seed=seed, draw=draw)
        draws[draw] = [near.at(noise, sign)[0] for sign in (1.0, -1.0)]
    draws -= near.loss
    near.move([tf.zeros_like(value) for value in near.originals])
    for weight in rounded:
        weight.variable.assign(weight.grid.values)
    measured = near.objective()[0] - near.loss
    bits = {weight.grid.num_bits for weight in rounded}
    if not np.isfinite([*draws.flat, measured]).all():
        raise errors.ModelError(
            f"the loss is not finite when {layer} of the model is rounded to "
            f"{sorted(bits)} bits: choose more bits."
        )
    squares = np.concatenate(
        [weight.widths.reshape(-1) ** 2 for weight in rounded]
    )
    hessian, gauss_newton = (
        mean_and_error(terms[curvature][among].sum(axis=0))
        for curvature in ("hessian", "gauss_newton")
    )
    means = draws.mean(axis=1)
    return LossRise(
        layer=layer,
        num_bits=bits.pop() if len(bits) == 1 else None,
        step_size=float(squares.mean() ** 0.5),
        hessian=hessian[0],
        hessian_error=hessian[1],
        gauss_newton=gauss_newton[0],
        gauss_newton_error=gauss_newton[1],
        simulated=float(means.mean()),
        simulated_error=float(means.std(ddof=1) / num_draws**0.5),
        noise_deviation=float(draws.std(ddof=1)),
        measured=float(measured),
    )
