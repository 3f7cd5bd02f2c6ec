"""Sharpness: how fast the loss rises around the weights."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.trials import Trials


@errors.typed
def average_sharpness(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    sigma: float = 0.01,
    num_samples: int = 80,
    examples_per_draw: int = 128,
    adaptive: bool = True,
) -> MeasureResult:
    """Mean rise in loss, in nats, under Gaussian weight noise.

    `E[L(w + sigma * u)] - L(w)` with `u_i ~ N(0, 1)`, or `N(0, w_i^2)` if
    adaptive (Andriushchenko et al. 2023, arXiv 2302.07011, section 2). To
    second order it is `sigma^2 / 2 * tr(H)`. Each draw is used with both
    signs, which cancels the gradient and every odd order, to the rounding of
    float32, and on a part of the data, another part each in turn: draws differ
    more than examples do, so that many draws on small parts have a smaller
    error than few on large ones in the same number of passes. A value below
    zero means that noise lowers the loss: the weights are not at a minimum of
    this data set.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights that get
        noise.
      seed: of the noise.
      sigma: standard deviation of the noise.
      num_samples: draws, at least 2.
      examples_per_draw: size of a part of the data, about.
      adaptive: whether noise is in units of |w|, which makes the measure blind
        to a rescaling of layers; weights that are zero get none.

    Raises:
      ConfigError: a setting is out of range.
      ModelError: the model has no weight to perturb, or its loss is not
        finite, with noise or without.
    """
    if not (0 < sigma < np.inf and num_samples >= 2 and examples_per_draw >= 1):
        raise errors.ConfigError(
            "average_sharpness needs a finite sigma > 0, num_samples >= 2 and "
            f"examples_per_draw >= 1, not {sigma}, {num_samples} and "
            f"{examples_per_draw}."
        )
    rises = []
    with perturbations.neighbourhood(
        model, dataset, loss_fn, point=point, variables=variables
    ) as near:
        trials = Trials(near, dataset, examples_per_draw)
        # before the weights move: so they need not be put back in between
        zeros = [trials.unmoved(draw)[0] for draw in range(num_samples)]
        for draw in range(num_samples):
            noise = perturbations.gaussian(
                near.originals, seed=seed, draw=draw, adaptive=adaptive
            )
            plus, _ = trials.at(draw, noise, sigma)
            minus, _ = trials.at(draw, noise, -sigma)
            rises.append((plus + minus) / 2 - zeros[draw])
    if not np.isfinite(rises).all():
        raise errors.ModelError(
            f"the loss of model {model.name!r} is not finite under noise of "
            f"sigma {sigma}: choose a smaller one."
        )
    return MeasureResult(
        name="average_sharpness",
        value=float(np.mean(rises)),
        unit="nats",
        standard_error=float(np.std(rises, ddof=1) / num_samples**0.5),
        converged=True,
        settings={
            "point": point,
            "seed": seed,
            "sigma": sigma,
            "num_samples": num_samples,
            "examples_per_draw": examples_per_draw,
            "adaptive": adaptive,
        },
        details={
            "accuracy": near.accuracy,
            "num_passes": trials.num_seen / trials.num_examples,
        },
    )
