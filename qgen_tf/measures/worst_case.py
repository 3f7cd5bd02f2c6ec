"""Worst-case sharpness: the largest rise in loss near the weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import ascent, perturbations, rises
from qgen_tf.measures.balls import Ball, Box, Ellipsoid, units
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult

# (norm, adaptive) to the default rho; see `worst_case_sharpness`
RADII = {
    ("l2", False): 0.25,
    ("l2", True): 1.0,
    ("linf", False): 4e-3,
    ("linf", True): 8e-3,
}


@errors.typed
def worst_case_sharpness(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    norm: str = "l2",
    rho: float | None = None,
    adaptive: bool = False,
    num_steps: int = 20,
    num_restarts: int = 1,
    m: int | None = None,
    of: str = "loss",
) -> MeasureResult:
    """Largest rise in loss, in nats, within a ball around the weights.

    `max L(w + e) - L(w)` over `||e / s|| <= rho`, where `s_i` is 1, or `|w_i|`
    if adaptive: then every weight moves by a share of itself (Andriushchenko
    et al. 2023, arXiv 2302.07011, equation 1; magnitude-aware in Jiang et al.
    2020). With m it is the mean over disjoint batches B of m examples of
    `max L_B(w + e) - L_B(w)`, the m-sharpness of Foret et al. 2021 (arXiv
    2010.01412, section 4.1): the smaller m, the larger. At a minimum the
    whole-data L2 sharpness is `rho^2 lambda_max / 2` to second order.

    The maximum is that of `ascent.worst_offset`: a lower bound, at least 0.
    The gradient of a quantizer is its straight-through one: at
    `point="latent"` it does not see that most changes below half a step are
    rounded away, and the search may stall below the maximum, even at 0.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation. With m, not in the order of its classes.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights that move.
      seed: of random starts.
      norm: "l2", or "linf" for the largest entry.
      rho: radius; None for that of `RADII`. Those lie in the ranges of the
        paper for ResNets on CIFAR-10 (L2 0.25 to 2, Linf 5e-4 to 4e-3,
        adaptive 1e-3 to 8e-3), at the end that suits small networks: on
        digits, some thousand weights rise by 0.2 to 1.4 nats in L2, and by a
        tenth of that in Linf, which moves all weights at once and so grows
        with their number. That of adaptive L2 moves no weight by more than
        itself, and raises the loss as much as L2.
      adaptive: whether e is in units of |w|, which makes the measure blind to
        a rescaling of layers; weights that are zero stay zero.
      num_steps: steps of the ascent, each a pass over the data, at least 1.
      num_restarts: starts of the ascent, at least 1, the first at e = 0. The
        loss has several hills: on digits a second start mostly adds less than
        1 %, 100 steps for 20 no more, but with m or with quantized activations
        now and then it adds half as much again.
      m: examples in a batch; a rest of less is left out. None for one maximum
        for all data. Batches larger than those of `dataset` are computed in
        such parts.
      of: "loss", or "error" for the rise of the error in points: the largest
        that the ascent of the loss comes by.

    Returns:
      The result; its standard error is that of the mean over batches, for the
      draw of the data, and 0 without m.

    Raises:
      ConfigError: a setting is out of range.
      DataError: the data set is empty.
      ModelError: the model has no weight to perturb, or its loss is not
        finite, in the ball or without an offset.
    """
    if (norm, adaptive) not in RADII:
        raise errors.ConfigError(
            f"worst_case_sharpness needs norm 'l2' or 'linf', not {norm!r}."
        )
    rho = RADII[norm, adaptive] if rho is None else rho
    if num_steps < 1 or num_restarts < 1:
        raise errors.ConfigError(
            "worst_case_sharpness needs num_steps >= 1 and num_restarts >= 1, "
            f"not {num_steps} and {num_restarts}."
        )
    rises.require_settings("worst_case_sharpness", rho, m, of)
    settings: dict[str, Any] = {
        "point": point,
        "seed": seed,
        "norm": norm,
        "rho": rho,
        "adaptive": adaptive,
        "num_steps": num_steps,
        "num_restarts": num_restarts,
        "m": m,
    }
    found = _worst_rises(
        model, dataset, loss_fn, variables=variables, **settings
    )
    kind = f"adaptive_{norm}" if adaptive else norm
    return rises.result(kind, found, {**settings, "of": of})


@sharing.remembered
def _worst_rises(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn,
    *,
    point: str,
    variables: Variables,
    seed: int,
    norm: str,
    rho: float,
    adaptive: bool,
    num_steps: int,
    num_restarts: int,
    m: int | None,
) -> list[rises.Rise]:
    with perturbations.neighbourhood(
        model, dataset, loss_fn, point=point, variables=variables
    ) as near:
        scales = units(near.originals, adaptive=adaptive)
        ball: Ball = Ellipsoid(rho, scales)
        if norm == "linf":
            ball = Box([rho * scale for scale in scales])
        found = []
        for objective in rises.objectives(near, dataset, m):
            worst = ascent.worst_offset(
                near,
                ball,
                num_steps=num_steps,
                num_restarts=num_restarts,
                seed=seed,
                objective=objective,
            )
            rises.require_finite(model, worst.finite, rho)
            found.append(
                rises.Rise(
                    worst.zero,
                    (worst.loss, worst.lowest_accuracy),
                    worst.num_passes,
                )
            )
    return found
