"""PAC-Bayes flatness: how much noise the weights bear."""

from __future__ import annotations

import math

import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations, search
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.trials import Trials

# The published code of Dziugaite et al. 2020, arXiv 2010.11924.
DZIUGAITE2020 = "dziugaite2020"

_SCOUTS = 3  # noise draws that bisect


@errors.typed
@sharing.remembered
def pac_bayes_sigma(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_samples: int = 10,
    max_samples: int = 100,
    relative_error: float = 0.03,
    examples_per_draw: int = 512,
    adaptive: bool = False,
    epsilon: float = 1e-3,
    target_drop: float = 0.1,
    bounds: tuple[float, float] = (1e-6, 2.0),
    compat: str | None = None,
) -> MeasureResult:
    """Gaussian weight noise that costs 0.1 of the accuracy.

    The `sigma` at which `E[acc(w) - acc(w + u)] = target_drop`, the quantity
    inside the PAC-Bayes measures of Jiang et al. 2020 (arXiv 1912.02178,
    equations 48 to 61), with `u_i ~ N(0, sigma^2)`, or if adaptive (their
    magnitude-aware sigma') `u_i ~ N(0, sigma^2 w_i^2 + epsilon^2)`. Flat
    minima have a large one. Logits that overflow count as wrong.

    See `search.find_crossing` for the search. Which noise is drawn matters more
    than which examples it is tried on, so each draw is tried on a part of the
    data, in turn: that allows of many more draws in as many passes. Noise is
    not used with both signs: the two drops go together, and two draws know
    more.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation.
      loss_fn: only there for the common interface; accuracy decides.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights that get
        noise.
      seed: of the noise.
      num_samples: draws, at least 2.
      max_samples: draws at most.
      relative_error: draws are added until the standard error is this share
        of sigma.
      examples_per_draw: size of a part of the data, about.
      adaptive: whether noise is in units of |w|.
      epsilon: of adaptive noise; standard deviation where a weight is zero.
      target_drop: accuracy lost, in (0, 1).
      bounds: smallest and largest sigma that are tried.
      compat: "dziugaite2020" takes the variances above for standard
        deviations, as that code does.

    Returns:
      The result; `converged` is False if `relative_error` is not reached, or
      if the answer lies outside of `bounds`, as it does for a model without
      the accuracy to lose. The value is then the bound, and `details` has
      which: `hit_bound`. Its `num_passes` is the work done, in readings of all
      the data.

    Raises:
      ConfigError: a setting is out of range.
      ModelError: the model has no weight to perturb, or its loss is not
        finite.
    """
    if compat not in (None, DZIUGAITE2020):
        raise errors.ConfigError(
            f"compat {compat!r} is neither None nor {DZIUGAITE2020!r}."
        )
    low, high = bounds
    if not (
        0 < low < high < math.inf
        and 0 < target_drop < 1
        and 0 <= epsilon < math.inf
        and 2 <= num_samples <= max_samples
        and 0 < relative_error < math.inf
        and examples_per_draw >= 1
    ):
        raise errors.ConfigError(
            "pac_bayes_sigma needs 0 < bounds[0] < bounds[1], target_drop in "
            "(0, 1), epsilon >= 0, 2 <= num_samples <= max_samples, "
            "relative_error > 0 and examples_per_draw >= 1, not "
            f"{bounds}, {target_drop}, {epsilon}, {num_samples}, "
            f"{max_samples}, {relative_error} and {examples_per_draw}."
        )

    def deviation(weight: tf.Tensor, sigma: float) -> tf.Tensor | float:
        if adaptive:
            variance = tf.square(sigma * weight) + epsilon**2
            return variance if compat else tf.sqrt(variance)
        return sigma**2 if compat else sigma

    with perturbations.neighbourhood(
        model, dataset, loss_fn, point=point, variables=variables
    ) as near:
        trials = Trials(near, dataset, examples_per_draw)

        def drop(sigma: float, draw: int) -> float:
            normal = perturbations.gaussian(
                near.originals, seed=seed, draw=draw, adaptive=False
            )
            noise = [
                deviation(weight, sigma) * part
                for weight, part in zip(near.originals, normal, strict=True)
            ]
            return trials.drop_on_part(draw, noise)

        found = search.find_crossing(
            drop,
            target=target_drop,
            bounds=(low, high),
            num_scouts=min(_SCOUTS, num_samples),
            num_draws=num_samples,
            max_draws=max_samples,
            relative_error=relative_error,
        )
    return MeasureResult(
        name="pac_bayes_sigma",
        value=found.scale,
        unit="|weight|" if adaptive else "weight",
        standard_error=found.scale * found.relative_error,
        converged=(
            found.hit_bound is None and found.relative_error <= relative_error
        ),
        settings={
            "point": point,
            "seed": seed,
            "num_samples": num_samples,
            "max_samples": max_samples,
            "relative_error": relative_error,
            "examples_per_draw": examples_per_draw,
            "adaptive": adaptive,
            "epsilon": epsilon,
            "target_drop": target_drop,
            "bounds": [low, high],
            "compat": compat,
        },
        details=trials.details(found),
    )
