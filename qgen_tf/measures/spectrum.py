"""The largest eigenvalues of the Hessian of a loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse.linalg
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import keras_model
from qgen_tf.measures.hessian_products import Operator, hessian_of
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables


@dataclasses.dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of the Hessian, the largest first.

    Attributes:
      values: float64 [count], in nats per squared weight.
      residuals: `|H v - lambda v|` of each unit eigenvector v found, likewise;
        the Hessian has an eigenvalue within this distance.
      vectors: float32 [count, weights]; the weights are those of all variables
        in their order, flattened.
      num_products: products of the Hessian with a vector that it took.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: np.ndarray = dataclasses.field(repr=False, compare=False)
    num_products: int


@errors.typed
def top_eigenvalues(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    variables: Variables = perturbations.kernels,
    count: int = 1,
    tolerance: float = 1e-3,
    max_restarts: int = 50,
    seed: int = 0,
) -> Eigenvalues:
    """Finds the largest eigenvalues of the Hessian, by Lanczos iterations.

    The largest one is the curvature of the sharpest direction: at a minimum,
    the worst rise in loss within a small distance rho is `rho^2 lambda_max /
    2`. The implicitly restarted Lanczos method of ARPACK keeps some twenty
    vectors of all weights in memory, in float64.

    Args:
      model: images to logits. The curvature is that at its weights as they
        are; for the deployed network pass `inference_model(model).model`.
      dataset: batches of (images, int labels), cached; read once for each
        product.
      loss_fn: (labels, logits) to the loss of each example.
      variables: given the model, its weights of interest.
      count: number of eigenvalues, less than that of weights.
      tolerance: relative accuracy of the eigenvalues; products are float32,
        so that 1e-6 is about the least.
      max_restarts: restarts of the method, each some ten products.
      seed: of the first vector.

    Raises:
      ConfigError: `count`, `tolerance` or `max_restarts` is out of range.
      DataError: the data set is empty.
      ModelError: the model has none of the weights, its loss or a product is
        not finite, the loss has no second derivative, or the eigenvalues were
        not found within `max_restarts`.
    """
    model = keras_model(model)
    operator = Operator(hessian_of(model, dataset, loss_fn, variables))
    size = operator.size
    if not (1 <= count < size and tolerance > 0 and max_restarts >= 1):
        raise errors.ConfigError(
            "top_eigenvalues needs tolerance > 0, max_restarts >= 1 and a "
            f"count of 1 to {size - 1} (there are {size} weights), not "
            f"{tolerance}, {max_restarts} and {count}."
        )
    start = np.random.default_rng(seed).normal(size=size)
    operator.require_curvature(operator(start))
    try:
        values, vectors = scipy.sparse.linalg.eigsh(
            scipy.sparse.linalg.LinearOperator(
                (size, size), operator, dtype=np.float64
            ),
            k=count,
            which="LA",
            v0=start,
            tol=tolerance,
            maxiter=max_restarts,
        )
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        raise errors.ModelError(
            f"{len(error.eigenvalues)} of {count} eigenvalues of model "
            f"{model.name!r} were found within {operator.num_products} "
            "products: raise max_restarts or tolerance."
        ) from error
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors.T[order]
    residuals = [
        np.linalg.norm(operator(vector) - value * vector)
        for value, vector in zip(values, vectors, strict=True)
    ]
    return Eigenvalues(
        values,
        np.array(residuals),
        vectors.astype(np.float32),
        operator.num_products,
    )
