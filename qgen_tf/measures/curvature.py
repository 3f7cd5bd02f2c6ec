"""Measures that are read off the Hessian of the loss."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.hessian import layer_traces, mean_and_error
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.spectrum import top_eigenvalues

_UNIT = "nats/weight^2"


@errors.typed
def hessian_trace(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_probes: int = 8,
) -> MeasureResult:
    """Trace of the Hessian: the curvature summed over all directions.

    `Tr(H)`, where H holds the second derivatives of the mean loss; noise of
    variance sigma^2 on each weight raises the loss by `sigma^2 / 2 * Tr(H)`,
    to second order. It is the sum of the traces of all layers, estimated by
    Hutchinson's method; see `layer_traces`. One probe serves all layers, so
    their errors go together: the standard error is that of the sum over
    layers in each probe.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation, or a part of it.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights of interest.
      seed: of the probes.
      num_probes: random vectors for each batch, at least 2; each costs a
        product of the Hessian with a vector.

    Returns:
      The result; `details` has the trace of each layer.

    Raises:
      ConfigError: a setting is out of range.
      DataError: the data set is empty.
      ModelError: the model has none of the weights, its loss is not finite, or
        the loss has no second derivative in some of them.
    """
    traces = layer_traces(
        perturbations.measured_model(model, point),
        dataset,
        loss_fn,
        variables=variables,
        num_probes=num_probes,
        seed=seed,
    )
    value, error = mean_and_error(
        np.sum([trace.samples for trace in traces], axis=0)
    )
    return MeasureResult(
        name="hessian_trace",
        value=value,
        unit=_UNIT,
        standard_error=error,
        converged=True,
        settings={"point": point, "seed": seed, "num_probes": num_probes},
        details={
            "layers": [
                {
                    "layer": trace.layer,
                    "variable": trace.variable,
                    "trace": trace.trace,
                    "standard_error": trace.standard_error,
                    "num_weights": trace.num_weights,
                }
                for trace in traces
            ]
        },
    )


@errors.typed
def hessian_top_eigenvalue(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    count: int = 1,
    tolerance: float = 1e-2,
    max_restarts: int = 50,
) -> MeasureResult:
    """Largest eigenvalue of the Hessian: the curvature where it is sharpest.

    At a minimum the worst rise in loss within a small distance rho of the
    weights is `rho^2 / 2 * lambda_max`. The largest is meant, not that of
    largest magnitude; see `top_eigenvalues`.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; the training set
        without augmentation, or a part of it.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights of interest.
      seed: of the first vector.
      count: number of eigenvalues to find; the value is the largest.
      tolerance: `|H v - lambda v| / lambda` of the vector v that is found.
        The error of lambda is bounded by it, and near its square where the
        eigenvalue is well apart from the next.
      max_restarts: of the search, each some ten products.

    Returns:
      The result; `converged` says whether the largest met the tolerance.
      `details` has all eigenvalues and the residuals `|H v - lambda v|`.

    Raises:
      ConfigError: a setting is out of range.
      DataError: the data set is empty.
      ModelError: the model has none of the weights, its loss is not finite, it
        has no second derivative in some of them, or the eigenvalues were not
        found within `max_restarts`.
    """
    found = top_eigenvalues(
        perturbations.measured_model(model, point),
        dataset,
        loss_fn,
        variables=variables,
        count=count,
        tolerance=tolerance,
        max_restarts=max_restarts,
        seed=seed,
    )
    value, residual = float(found.values[0]), float(found.residuals[0])
    return MeasureResult(
        name="hessian_top_eigenvalue",
        value=value,
        unit=_UNIT,
        standard_error=0.0,
        converged=residual <= tolerance * abs(value),
        settings={
            "point": point,
            "seed": seed,
            "count": count,
            "tolerance": tolerance,
            "max_restarts": max_restarts,
        },
        details={
            "eigenvalues": found.values.tolist(),
            "residuals": found.residuals.tolist(),
            "num_products": found.num_products,
        },
    )
