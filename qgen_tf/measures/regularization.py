"""The regularization that rounding noise amounts to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.gauss_newton import GaussNewton, gauss_newton_of
from qgen_tf.measures.hessian import mean_and_error
from qgen_tf.measures.hessian_products import Hessian, hessian_of
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.rounding import RoundedWeight, rounded_weights

_MATRICES: dict[str, Callable[..., Hessian | GaussNewton]] = {
    "hessian": hessian_of,
    "gauss_newton": gauss_newton_of,
}


@errors.typed
def regularization(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    curvature: str = "hessian",
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_probes: int = 16,
    num_bits: int | None = None,
    step_rule: str = "lsq",
) -> MeasureResult:
    """Rise in loss that uniform rounding noise causes, in nats.

    To second order, noise on each weight i that is uniform on `[-s_i/2,
    s_i/2]`, s_i its bin width, and independent of the others, adds to the loss

        sum over weights i of  s_i^2 / 24 * C_ii

    with C the Hessian, or the Gauss-Newton matrix: then it is the expected
    squared gradient of the outputs in the weights, the regularization term
    that training with quantization amounts to (QGen, arXiv 2404.11769, section
    3). It is s^2 / 24 times a trace for each layer that has one bin width:
    wide bins and sharp minima both make it large.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation.
      loss_fn: (labels, logits) to the loss of each example.
      curvature: "hessian" or "gauss_newton"; see `layer_gauss_newton_traces`
        for where the two agree.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights of interest;
        those without a grid have no noise.
      seed: of the probes.
      num_probes: random vectors for each batch, at least 2.
      num_bits: asks what the term would be if a float model were rounded to
        these bits; None for a quantized model, which has its own.
      step_rule: of the bin widths at `num_bits`; see `rounded_weights`.

    Returns:
      The result; `details` has the term of each layer, and the noise power
      `sum of s_i^2 / 12`.

    Raises:
      ConfigError: a setting is out of range, or no weight has a grid.
      DataError: the data set is empty.
      ModelError: the loss is not finite or has no second derivative, or the
        model does not fit the settings; see `rounded_weights`.
    """
    network, weights = rounded_weights(
        model,
        point=point,
        variables=variables,
        num_bits=num_bits,
        step_rule=step_rule,
    )
    (terms,) = regularization_terms(
        network,
        dataset,
        loss_fn,
        variables,
        [weights],
        curvature=curvature,
        num_probes=num_probes,
        seed=seed,
    )
    value, error = mean_and_error(terms.sum(axis=0))
    return MeasureResult(
        name=f"regularization_{curvature}",
        value=value,
        unit="nats",
        standard_error=error,
        converged=True,
        settings={
            "curvature": curvature,
            "point": point,
            "seed": seed,
            "num_probes": num_probes,
            "num_bits": num_bits,
            "step_rule": step_rule,
        },
        details={
            "layers": {
                weight.layer: mean_and_error(term)[0]
                for weight, term in zip(weights, terms, strict=True)
            },
            "predicted_noise_power": float(
                sum((weight.widths**2).sum() for weight in weights) / 12
            ),
        },
    )


def regularization_terms(
    network: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn,
    variables: Variables,
    roundings: Sequence[Sequence[RoundedWeight]],
    *,
    curvature: str,
    num_probes: int,
    seed: int,
) -> np.ndarray:
    """Returns samples of `sum over weights of s_i^2 / 24 * C_ii` a layer.

    One sample of the diagonal of C serves all roundings.

    Args:
      network: at whose weights the curvature is taken.
      dataset: see `regularization`.
      loss_fn: likewise.
      variables: likewise; the rounded weights are among them.
      roundings: the same weights on one or more sets of grids.
      curvature: see `regularization`.
      num_probes: likewise.
      seed: likewise.

    Returns:
      float64 [roundings, weights, probes, batches]; a term is the mean over
      probes of the sum over batches. See `hessian.mean_and_error`.

    Raises:
      ConfigError: `curvature` is unknown or `num_probes` is too small.
      DataError: the data set is empty.
      ModelError: the loss is not finite or has no second derivative.
    """
    if curvature not in _MATRICES or num_probes < 2:
        raise errors.ConfigError(
            f"curvature must be one of {list(_MATRICES)} and num_probes at "
            f"least 2, not {curvature!r} and {num_probes}."
        )
    chosen = {id(v): place for place, v in enumerate(variables(network))}
    places = [chosen[id(weight.variable)] for weight in roundings[0]]
    factors = [
        [weight.widths**2 / 24 for weight in weights] for weights in roundings
    ]
    samples, counts = [], []
    matrix = _MATRICES[curvature](network, dataset, loss_fn, variables)
    curved = np.zeros(len(chosen), bool)
    for count, diagonal in itertools.chain.from_iterable(
        matrix.batch_diagonals(seed=seed, probe=probe)
        for probe in range(num_probes)
    ):
        curved |= [part.any() for part in diagonal]
        counts.append(count)
        samples.append(
            [
                [
                    count * np.vdot(factor, diagonal[place])
                    for factor, place in zip(row, places, strict=True)
                ]
                for row in factors
            ]
        )
    if isinstance(matrix, Hessian):
        matrix.require_curvature([*curved])
    terms = np.moveaxis(np.array(samples), 0, -1) / (sum(counts) / num_probes)
    return terms.reshape(len(factors), len(places), num_probes, -1)
