"""PAC-Bayes flatness: how much noise the weights bear."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult

_RELATIVE_TOLERANCE = 0.02
_BOOTSTRAP_RESAMPLES = 1000


def pac_bayes_sigma(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_samples: int = 10,
    adaptive: bool = False,
    target_drop: float = 0.1,
    bounds: tuple[float, float] = (1e-4, 2.0),
) -> MeasureResult:
    """Largest Gaussian weight noise that costs 0.1 of the accuracy.

    The `sigma` at which `E[acc(w) - acc(w + sigma * u)] = target_drop`, the
    quantity inside the PAC-Bayes measures of Jiang et al. 2020 (arXiv
    1912.02178, equations 48 to 61). Flat minima have a large one. The search
    bisects `log(sigma)` with the same noise draws at every step, so that the
    drop is a continuous function of sigma but for the finite data set. Logits
    that overflow count as wrong.

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
      adaptive: whether noise is in units of |w|: the magnitude-aware sigma',
        without the constant (epsilon) that the paper adds, so that weights
        that are zero get no noise.
      target_drop: accuracy lost, in (0, 1).
      bounds: smallest and largest sigma that are tried.

    Returns:
      The result; `converged` is False if the answer lies outside `bounds`,
      and then the value is the bound that it hit. The standard error is a
      bootstrap over noise draws.

    Raises:
      ConfigError: a setting is out of range.
      ModelError: the model has no weight to perturb, or its loss is not
        finite.
    """
    low, high = bounds
    if not (
        0 < low < high < np.inf and 0 < target_drop < 1 and num_samples >= 2
    ):
        raise errors.ConfigError(
            "pac_bayes_sigma needs 0 < bounds[0] < bounds[1], target_drop in "
            f"(0, 1) and num_samples >= 2, not {bounds}, {target_drop} and "
            f"{num_samples}."
        )
    drops: dict[float, np.ndarray] = {}
    with perturbations.neighbourhood(
        model, dataset, loss_fn, point=point, variables=variables
    ) as near:

        def mean_drop(sigma: float) -> float:
            drops[sigma] = np.array(
                [
                    near.accuracy
                    - near.under_noise(
                        draw, sigma, seed=seed, adaptive=adaptive
                    )[1]
                    for draw in range(num_samples)
                ]
            )
            return float(drops[sigma].mean())

        converged = mean_drop(low) <= target_drop < mean_drop(high)
        while converged and high / low > 1 + _RELATIVE_TOLERANCE:
            middle = float(np.sqrt(low * high))
            if mean_drop(middle) <= target_drop:
                low = middle
            else:
                high = middle
    sigmas = np.array(sorted(drops))
    curves = np.array([drops[sigma] for sigma in sigmas])
    return MeasureResult(
        name="pac_bayes_sigma",
        value=_crossing(sigmas, curves.mean(axis=1), target_drop),
        unit="|weight|" if adaptive else "weight",
        standard_error=_bootstrap_error(sigmas, curves, target_drop, seed),
        converged=converged,
        settings={
            "point": point,
            "seed": seed,
            "num_samples": num_samples,
            "adaptive": adaptive,
            "target_drop": target_drop,
            "bounds": list(bounds),
        },
        details={"accuracy": near.accuracy},
    )


def _crossing(sigmas: np.ndarray, drops: np.ndarray, target: float) -> float:
    """Returns the sigma at which the drop reaches the target.

    Args:
      sigmas: [points], ascending.
      drops: [points]; made monotone, since noise can only add to the drop.
      target: interpolated in `log(sigma)`; beyond the drops, the end sigma.
    """
    rising = np.maximum.accumulate(drops)
    return float(np.exp(np.interp(target, rising, np.log(sigmas))))


def _bootstrap_error(
    sigmas: np.ndarray, curves: np.ndarray, target: float, seed: int
) -> float:
    """Returns the standard deviation of the crossing over noise draws.

    Args:
      sigmas: [points].
      curves: drop of each draw, [points, draws].
      target: drop at the crossing.
      seed: of the resampling.
    """
    draws = curves.shape[1]
    picks = np.random.default_rng(seed).integers(
        draws, size=(_BOOTSTRAP_RESAMPLES, draws)
    )
    crossings = [
        _crossing(sigmas, curves[:, pick].mean(axis=1), target)
        for pick in picks
    ]
    # resampling n draws shows the variance of n - 1
    return float(np.std(crossings) * (draws / (draws - 1)) ** 0.5)
