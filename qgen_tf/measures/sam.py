"""The rise in loss that sharpness-aware minimization (SAM) keeps small."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations, rises
from qgen_tf.measures.balls import Ellipsoid, units
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult


@errors.typed
def sam_sharpness(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    rho: float = 0.05,
    adaptive: bool = False,
    eta: float = 0.01,
    m: int | None = None,
    of: str = "loss",
) -> MeasureResult:
    """Rise in loss, in nats, after the ascent step of SAM.

    `L(w + e) - L(w)` with `e = rho g / ||g||`, g being the gradient (Foret et
    al. 2021, arXiv 2010.01412, equation 2), or `e = rho T^2 g / ||T g||` with
    `T = |w| + eta` if adaptive (ASAM, Kwon et al. 2021, arXiv 2102.11600,
    section 3). It is what SAM keeps small in training, with m the batch of one
    device. To first order it is `rho ||T g||`: the worst case where the loss
    is linear, but at a minimum it is 0 and says nothing. It can be below 0.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation. With m, not in the order of its classes.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights that move.
      seed: only there for the common interface; nothing is drawn.
      rho: length of the step; 0.05 is that of SAM, ASAM takes 0.5.
      adaptive: whether the step is in units of `|w| + eta`.
      eta: keeps small weights from being held fast, at least 0. At 0 the
        adaptive step is blind to a rescaling of layers.
      m: examples in a batch, or None; see `worst_case_sharpness`.
      of: "loss", or "error" for the rise of the error in points.

    Returns:
      The result; for its standard error see `worst_case_sharpness`.

    Raises:
      ConfigError: a setting is out of range.
      DataError: the data set is empty.
      ModelError: the model has no weight to perturb, or its loss is not
        finite, before the step or after.
    """
    if not 0 <= eta < math.inf:
        raise errors.ConfigError(
            f"sam_sharpness needs a finite eta >= 0, not {eta}."
        )
    rises.require_settings("sam_sharpness", rho, m, of)
    settings: dict[str, Any] = {
        "point": point,
        "rho": rho,
        "adaptive": adaptive,
        "eta": eta,
        "m": m,
    }
    found = _sam_rises(model, dataset, loss_fn, variables=variables, **settings)
    kind = "asam" if adaptive else "sam"
    return rises.result(kind, found, {**settings, "seed": seed, "of": of})


@sharing.remembered
def _sam_rises(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn,
    *,
    point: str,
    variables: Variables,
    rho: float,
    adaptive: bool,
    eta: float,
    m: int | None,
) -> list[rises.Rise]:
    with perturbations.neighbourhood(
        model, dataset, loss_fn, point=point, variables=variables
    ) as near:
        ball = Ellipsoid(rho, units(near.originals, adaptive=adaptive, eta=eta))
        found = []
        for objective in rises.objectives(near, dataset, m):
            near.put_back()
            loss, accuracy, gradients = objective.gradient()
            near.move(ball.steepest(gradients))
            moved = objective()
            rises.require_finite(model, math.isfinite(moved[0]), rho)
            found.append(rises.Rise((loss, accuracy), moved, 2))
    return found
