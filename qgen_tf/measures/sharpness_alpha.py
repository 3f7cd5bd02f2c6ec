"""Worst-case sharpness in accuracy: how far all weights may move at once."""

from __future__ import annotations

import math

import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import ascent, balls, perturbations, search
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.trials import Trials


@errors.typed
@sharing.remembered
def sharpness_alpha(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_restarts: int = 3,
    num_steps: int = 20,
    examples_per_draw: int = 512,
    adaptive: bool = False,
    epsilon: float = 1e-3,
    target_drop: float = 0.1,
    bounds: tuple[float, float] = (1e-6, 2.0),
) -> MeasureResult:
    """Worst-case weight offset that costs 0.1 of the accuracy.

    The `alpha` at which `max over |u_i| <= alpha of acc(w) - acc(w + u) =
    target_drop`, the quantity inside the sharpness measures of Jiang et al.
    2020 (arXiv 1912.02178, equations 51 to 62); if adaptive (their
    magnitude-aware alpha') with `|u_i| <= alpha |w_i| + epsilon`.

    See `search.find_crossing` for the search. The offset is found by raising
    the loss (`ascent.worst_offset`), with the gradients of a part of the data
    to be affordable, and it is tried on all of it. So alpha is an upper bound,
    which more steps and more ascents lower.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation.
      loss_fn: (labels, logits) to the loss of each example, which is raised.
      point: "deployed" or "latent"; see `perturbations.measured_model`. The
        ascent may stall under a live quantizer.
      variables: given the network that is measured, its weights that move.
      seed: of the parts of the data and of random starts.
      num_restarts: ascents whose worst counts: each starts at the weights, on
        another part of the data. When all parts have been taken, it starts at
        a random offset as well.
      num_steps: of an ascent.
      examples_per_draw: size of the part of the data that an ascent sees,
        about.
      adaptive: whether offsets are in units of |w|.
      epsilon: of adaptive offsets; the largest where a weight is zero.
      target_drop: accuracy lost, in (0, 1).
      bounds: smallest and largest alpha that are tried.

    Returns:
      The result; `converged` is False if the answer lies outside of `bounds`,
      and then the value is the bound; see `pac_bayes_sigma`. The standard
      error says how far ascents disagree, 0 if there is one. It does not know
      of what no ascent has found.

    Raises:
      ConfigError: a setting is out of range.
      ModelError: the model has no weight to perturb, or its loss is not
        finite.
    """
    low, high = bounds
    if not (
        0 < low < high < math.inf
        and 0 < target_drop < 1
        and 0 <= epsilon < math.inf
        and num_restarts >= 1
        and num_steps >= 1
        and examples_per_draw >= 1
    ):
        raise errors.ConfigError(
            "sharpness_alpha needs 0 < bounds[0] < bounds[1], target_drop in "
            "(0, 1), epsilon >= 0, num_restarts >= 1, num_steps >= 1 and "
            f"examples_per_draw >= 1, not {bounds}, {target_drop}, {epsilon}, "
            f"{num_restarts}, {num_steps} and {examples_per_draw}."
        )

    def radius(weight: tf.Tensor, alpha: float) -> tf.Tensor:
        if adaptive:
            return alpha * tf.abs(weight) + epsilon
        return tf.fill(weight.shape, tf.cast(alpha, weight.dtype))

    with perturbations.neighbourhood(
        model, dataset, loss_fn, point=point, variables=variables
    ) as near:
        trials = Trials(near, dataset, examples_per_draw)

        def drop(alpha: float, draw: int) -> float:
            turn = seed * num_restarts + draw
            found = ascent.worst_offset(
                near,
                balls.Box([radius(w, alpha) for w in near.originals]),
                num_steps=num_steps,
                num_restarts=1 if draw < trials.num_parts else 2,
                seed=turn,
                objective=trials.part(turn),
            )
            trials.num_seen += found.num_passes * trials.part_size(turn)
            if trials.num_parts == 1:
                return near.accuracy - found.lowest_accuracy
            return trials.drop(found.offsets)

        found = search.find_crossing(
            drop,
            target=target_drop,
            bounds=(low, high),
            num_scouts=1,
            num_draws=num_restarts,
            max_draws=num_restarts,
            relative_error=math.inf,
            worst=True,
        )
    return MeasureResult(
        name="sharpness_alpha",
        value=found.scale,
        unit="|weight|" if adaptive else "weight",
        standard_error=found.scale * found.relative_error,
        converged=found.hit_bound is None,
        settings={
            "point": point,
            "seed": seed,
            "num_restarts": num_restarts,
            "num_steps": num_steps,
            "examples_per_draw": examples_per_draw,
            "adaptive": adaptive,
            "epsilon": epsilon,
            "target_drop": target_drop,
            "bounds": [low, high],
        },
        details=trials.details(found),
    )
