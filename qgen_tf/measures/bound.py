"""A bound on the loss on unseen data, given the quantization noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.ascent import worst_offset
from qgen_tf.measures.balls import Ellipsoid
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.rounding import rounded_weights


@errors.typed
def generalization_bound(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_bits: int | None = None,
    step_rule: str = "lsq",
    num_train: int | None = None,
    delta: float = 0.05,
    num_steps: int = 20,
    num_restarts: int = 1,
) -> MeasureResult:
    """Approximate bound on the expected loss, conditioned on the noise.

    With probability `1 - delta` over n training examples,

        L_D(w) <= max over |e| <= rho of L_S(w + e) + complexity

    (Foret et al. 2021, arXiv 2010.01412, theorem 2, appendix A.1), see
    `complexity`. The radius rho is the norm `|latent - rounded|` of the noise
    that rounding has added to the weights: coarse grids widen the ball, which
    raises the first term and lowers the second (QGen, arXiv 2404.11769).

    It is an approximation, of use in its ordering of models, not in its value:
    for large networks the second term is far above any loss; the theorem is
    for losses in [0, 1] and takes rho as chosen before the data were seen; and
    the ascent that looks for the maximum finds a lower estimate of it.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation, or a part of it.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights: all are
        moved, and are counted in k and |w|; those with a grid have noise.
      seed: of the ascent.
      num_bits: asks for the noise that rounding to these bits would add to a
        float model; None for a quantized model, which has its own.
      step_rule: of the bin widths at `num_bits`; see `rounded_weights`.
      num_train: n; None for the number of examples in `dataset`.
      delta: chance that the bound does not hold, in (0, 1).
      num_steps: of each ascent; see `ascent.worst_offset`.
      num_restarts: of the ascent, likewise.

    Returns:
      The result; `details` has the two terms, the loss without an offset, and
      rho, k, n and |w|.

    Raises:
      ConfigError: a setting is out of range, or no weight has a grid.
      DataError: the data set is empty.
      ModelError: the loss is not finite, here or inside of the ball, or all
        weights are on their grids: without noise there is no bound; or the
        model does not fit the settings, see `rounded_weights`.
    """
    if not (0 < delta < 1 and num_steps >= 1 and num_restarts >= 1) or (
        num_train is not None and num_train < 2
    ):
        raise errors.ConfigError(
            "generalization_bound needs delta in (0, 1), num_steps and "
            f"num_restarts >= 1 and num_train >= 2, not {delta}, {num_steps}, "
            f"{num_restarts} and {num_train}."
        )
    network, weights = rounded_weights(
        model,
        point=point,
        variables=variables,
        num_bits=num_bits,
        step_rule=step_rule,
    )
    rho = math.sqrt(sum(weight.noise_power for weight in weights))
    if not rho > 0:
        raise errors.ModelError(
            f"rounding adds no noise to model {model.name!r}: all its weights "
            "are on their grids, and the bound is infinite."
        )
    with perturbations.neighbourhood(
        network, dataset, loss_fn, point="latent", variables=variables
    ) as near:
        ball = Ellipsoid(rho, [tf.ones_like(value) for value in near.originals])
        worst = worst_offset(
            near,
            ball,
            num_steps=num_steps,
            num_restarts=num_restarts,
            seed=seed,
        )
        squares = sum(
            np.square(value.numpy(), dtype=np.float64).sum()
            for value in near.originals
        )
        num_examples = near.objective.num_examples
    if not worst.finite:
        raise errors.ModelError(
            f"the loss of model {model.name!r} is not finite within {rho} of "
            "its weights: the bound is infinite."
        )
    terms: dict[str, Any] = {
        "num_weights": near.num_weights,
        "num_train": num_train or num_examples,
        "weight_norm": float(squares**0.5),
        "rho": rho,
    }
    second = complexity(**terms, delta=delta)
    return MeasureResult(
        name="generalization_bound",
        value=worst.loss + second,
        unit="nats",
        standard_error=0.0,
        converged=True,
        settings={
            "point": point,
            "seed": seed,
            "num_bits": num_bits,
            "step_rule": step_rule,
            "num_train": num_train,
            "delta": delta,
            "num_steps": num_steps,
            "num_restarts": num_restarts,
        },
        details={
            "max_loss": worst.loss,
            "complexity": second,
            "loss": near.loss,
            **terms,
        },
    )


def complexity(
    *,
    num_weights: int,
    num_train: int,
    weight_norm: float,
    rho: float,
    delta: float,
) -> float:
    """Returns the second term of the bound; it falls as rho grows.

        sqrt((k log(1 + |w|^2 / rho^2 (1 + sqrt(log(n) / k))^2)
              + 4 log(n / delta) + 8 log(6 n + 3 k)) / (n - 1))

    (Foret et al. 2021, theorem 2.)

    Args:
      num_weights: k, at least 1.
      num_train: n, at least 2.
      weight_norm: |w|.
      rho: radius of the ball, above 0.
      delta: chance that the bound does not hold, in (0, 1).

    Raises:
      ConfigError: an argument is out of range.
    """
    k, n = num_weights, num_train
    if not (k >= 1 and n >= 2 and rho > 0 and 0 < delta < 1):
        raise errors.ConfigError(
            "complexity needs num_weights >= 1, num_train >= 2, rho > 0 and "
            f"delta in (0, 1), not {k}, {n}, {rho} and {delta}."
        )
    ratio = weight_norm / rho * (1 + math.sqrt(math.log(n) / k))
    volume = k * math.log1p(ratio**2)
    chance = 4 * math.log(n / delta) + 8 * math.log(6 * n + 3 * k)
    return math.sqrt((volume + chance) / (n - 1))
