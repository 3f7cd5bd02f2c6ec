"""The twelve flatness measures of Jiang et al. 2020."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.jiang_equations import Equation
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.pac_bayes import pac_bayes_sigma
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.sharpness_alpha import sharpness_alpha


@errors.typed
def jiang2020(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    noise: str = "gaussian",
    form: str = "init",
    adaptive: bool = False,
    initial: keras.Model | None = None,
    num_train: int | None = None,
    delta: float = 0.05,
    orig_denominator: str = "init",
    compat: str | None = None,
    num_samples: int = 10,
    max_samples: int = 100,
    relative_error: float = 0.03,
    num_restarts: int = 3,
    num_steps: int = 20,
    examples_per_draw: int = 512,
    epsilon: float = 1e-3,
    target_drop: float = 0.1,
    bounds: tuple[float, float] = (1e-6, 2.0),
) -> MeasureResult:
    """PAC-Bayes and sharpness measures of Jiang et al. 2020.

    With w the weights, w0 the initial ones, n their number, m that of training
    examples, sigma of `pac_bayes_sigma` and alpha of `sharpness_alpha`
    (arXiv 1912.02178, appendix C.5, equation numbers in brackets):

        pac_bayes_init   ||w - w0||^2 / (4 sigma^2) + log(m / sigma) + 10  [48]
        sharpness_init   ||w - w0||^2 log(2 n) / (4 alpha^2)
                             + log(m / sigma) + 10                         [51]
        ..._flatness     1 / sigma^2 [53], 1 / alpha^2 [54]

    and the magnitude-aware ones, with adaptive sigma and alpha:

        pac_bayes_mag_init   sum_i log(a / b_i) / 4 + log(m / sigma) + 10  [56]
            a   = epsilon^2 + (sigma^2 + 1) ||w - w0||^2 / n
            b_i = epsilon^2 + sigma^2 (w_i - w0_i)^2
        sharpness_mag_init   the same sum, + log(m / sigma) + 10, with     [59]
            a   = epsilon^2 + (alpha^2 + 4 log(2 n / delta)) ||w - w0||^2 / n
            b_i = epsilon^2 + alpha^2 (w_i - w0_i)^2
        ..._mag_flatness     1 / sigma^2 [61], 1 / alpha^2 [62]

    "orig" has ||w||^2 in the place of ||w - w0||^2 [49, 52, 57, 60]. The first
    term of the sharpness is half of what alpha = sigma sqrt(2 log(2 n))
    would make it; it is kept as printed. These are to be compared between
    networks; the bound that they stand for is `sqrt(value / m)` and mostly
    vacuous.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights: those that
        move and those in the norms are the same.
      seed: of noise and random starts.
      noise: "gaussian" for pac_bayes, "worst_case" for sharpness.
      form: "init", "orig" or "flatness".
      adaptive: whether the measure is magnitude-aware.
      initial: the model with its initial weights, float or quantized; w0 are
        the values that they have at the same `point`, so with BatchNorm folded
        and on their grid if there is one. Only needed for "init", and for b_i
        of "orig".
      num_train: m, if the data set is not all of the training set.
      delta: probability that the bound does not hold; in equations 59 and 60.
      orig_denominator: for "orig", whether b_i has `w_i - w0_i` ("init", as
        published code has it), or w_i ("zero").
      compat: "dziugaite2020" repeats two things in the code of Dziugaite et
        al. 2020 (arXiv 2010.11924): noise with the variance as its standard
        deviation, and `sqrt(value / m)` as the value.
      num_samples: see `pac_bayes_sigma`.
      max_samples: see there.
      relative_error: see there.
      num_restarts: see `sharpness_alpha`.
      num_steps: see there.
      examples_per_draw: of both.
      epsilon: of both, above 0, and of the equations.
      target_drop: of both.
      bounds: of both.

    Returns:
      The result; it has converged if the searches have. `details` has these,
      and the value in the units of the published code.

    Raises:
      ConfigError: a setting is out of range, or `initial` is missing.
      ModelError: the model has no weight to perturb, its loss is not finite,
        or `initial` has other weights.
    """
    equation = Equation(noise, form, adaptive, orig_denominator, epsilon, delta)
    if num_train is not None and num_train < 1:
        raise errors.ConfigError(
            f"num_train must be positive, not {num_train}."
        )
    if compat and noise == "worst_case":
        raise errors.ConfigError(
            f"compat {compat!r} has no {equation.name}: leave it out."
        )
    weights, start = _weights(equation, model, initial, point, variables)
    of_both: dict[str, Any] = {
        "point": point,
        "variables": variables,
        "seed": seed,
        "examples_per_draw": examples_per_draw,
        "adaptive": adaptive,
        "epsilon": epsilon,
        "target_drop": target_drop,
        "bounds": tuple(bounds),
    }
    found: dict[str, MeasureResult] = {}
    if "alpha" in equation.symbols:
        found["alpha"] = sharpness_alpha(
            model,
            dataset,
            loss_fn,
            num_restarts=num_restarts,
            num_steps=num_steps,
            **of_both,
        )
    if "sigma" in equation.symbols:
        found["sigma"] = pac_bayes_sigma(
            model,
            dataset,
            loss_fn,
            num_samples=num_samples,
            max_samples=max_samples,
            relative_error=relative_error,
            compat=compat,
            **of_both,
        )
    (first, *_) = found.values()
    m = num_train or first.details["num_examples"]
    value, error = _with_error(
        lambda scales: equation.value(scales, m, weights, start), found
    )
    published = math.sqrt(value / m) if value > 0 else None
    details: dict[str, Any] = {
        symbol: _summary(search) for symbol, search in found.items()
    }
    details["reported_by_dziugaite2020"] = published
    unit = f"1/{first.unit}^2" if form == "flatness" else "nats"
    if compat:
        if published is None:
            raise errors.ModelError(
                f"{equation.name} of model {model.name!r} is {value}: it has "
                "no square root, so leave out compat."
            )
        value, error = published, error / (2 * m * published)
        unit = f"({unit})^(1/2)"
    return MeasureResult(
        name=equation.name,
        value=value,
        unit=unit,
        standard_error=error,
        converged=all(search.converged for search in found.values()),
        settings={
            "point": point,
            "seed": seed,
            "noise": noise,
            "form": form,
            "adaptive": adaptive,
            "num_train": m,
            "delta": delta,
            "orig_denominator": orig_denominator,
            "compat": compat,
            "num_samples": num_samples,
            "max_samples": max_samples,
            "relative_error": relative_error,
            "num_restarts": num_restarts,
            "num_steps": num_steps,
            "examples_per_draw": examples_per_draw,
            "epsilon": epsilon,
            "target_drop": target_drop,
            "bounds": list(bounds),
        },
        details=details,
    )


def _weights(
    equation: Equation,
    model: keras.Model,
    initial: keras.Model | None,
    point: str,
    variables: Variables,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns w and w0 as far as the equation has them."""

    def values(model: keras.Model) -> list[np.ndarray]:
        network = perturbations.measured_model(model, point)
        return [variable.numpy() for variable in variables(network)]

    weights = values(model) if equation.needs_weights else []
    if not equation.needs_initial:
        return weights, []
    if initial is None:
        raise errors.ConfigError(
            f"{equation.name} needs the initial weights: pass initial=, the "
            "model as it was before training."
        )
    start = values(initial)
    if [w.shape for w in weights] != [w.shape for w in start]:
        raise errors.ModelError(
            f"model {model.name!r} and initial={initial.name!r} have weights "
            "of different shapes: pass the same model before training."
        )
    return weights, start


def _with_error(
    equation: Callable[[dict[str, float]], float],
    found: dict[str, MeasureResult],
) -> tuple[float, float]:
    """Returns a value and its standard error, from those of its arguments.

    To first order in their relative errors, which are independent.
    """
    scales = {symbol: search.value for symbol, search in found.items()}
    parts = []
    for symbol, search in found.items():
        factor = math.exp(search.standard_error / search.value)
        low, high = (
            equation({**scales, symbol: scale})
            for scale in (search.value / factor, search.value * factor)
        )
        parts.append((high - low) / 2)
    return equation(scales), math.hypot(*parts)


def _summary(search: MeasureResult) -> dict[str, Any]:
    """Returns what a search has found, for JSON."""
    return {
        "value": search.value,
        "standard_error": search.standard_error,
        "converged": search.converged,
        **search.details,
    }
