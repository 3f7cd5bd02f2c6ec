"""The spectral density of the Hessian of a loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import keras_model
from qgen_tf.measures.hessian_products import Operator, hessian_of
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables

# of the largest eigenvalue: what products in float32 cannot tell from zero
_ROUNDING = 1e-6
# a normal distribution ends here, and is smooth between points so far apart,
# in standard deviations
_TAIL, _SPACING = 6.0, 0.5


@dataclasses.dataclass(frozen=True)
class SpectralDensity:
    """How the eigenvalues of a Hessian are distributed.

    Attributes:
      eigenvalues: float64 [points], ascending and evenly spaced, in nats per
        squared weight.
      density: float64 [points], the share of eigenvalues per unit; it
        integrates to 1.
      standard_error: float64 [points], Monte-Carlo error of the density.
      nodes: float64 [nodes], ascending; eigenvalues or averages of several, as
        all random vectors have found them.
      weights: float64 [nodes], the share of eigenvalues that each node stands
        for; they sum to 1.
      num_weights: n, the number of eigenvalues.
      num_products: products of the Hessian with a vector that it took.
    """

    eigenvalues: np.ndarray
    density: np.ndarray
    standard_error: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    num_weights: int
    num_products: int

    @property
    def trace(self) -> float:
        """Trace of the Hessian, n times the mean eigenvalue."""
        return float(self.num_weights * (self.weights @ self.nodes))


@errors.typed
def spectral_density(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    variables: Variables = perturbations.kernels,
    num_vectors: int = 4,
    num_steps: int = 50,
    width: float = 0.003,
    seed: int = 0,
) -> SpectralDensity:
    """Estimates the density of eigenvalues, by stochastic Lanczos quadrature.

    From a vector v of random signs over sqrt(n), Lanczos iterations build a
    tridiagonal matrix whose eigenvalues theta_i, with the squares tau_i of the
    first components of its eigenvectors, are a quadrature:
    `v' f(H) v = sum_i tau_i f(theta_i)`, exact for polynomials f of a degree
    below twice the number of steps, and `E[v' f(H) v] = Tr(f(H)) / n` (Ubaru,
    Chen and Saad 2017). The density has a normal distribution around each
    node (Ghorbani et al. 2019, arXiv 1901.10159; Yao et al. 2019, arXiv
    1912.07145).

    Each vector is made orthogonal to all before it, twice, which are held in
    memory in float32: `num_steps` times the number of weights.

    Args:
      model: images to logits. The density is that at its weights as they are;
        for the deployed network pass `inference_model(model).model`.
      dataset: batches of (images, int labels), cached; read once for each
        product.
      loss_fn: (labels, logits) to the loss of each example.
      variables: given the model, its weights of interest; `of_layer(name)` for
        the block of one layer.
      num_vectors: random vectors, at least 2.
      num_steps: products for each vector, at least 2; fewer where a vector
        reaches only fewer eigenvalues.
      width: standard deviation around each node, as a share of the range of
        the nodes.
      seed: of the random vectors.

    Raises:
      ConfigError: a setting is out of range.
      DataError: the data set is empty.
      ModelError: the model has none of the weights, its loss or a product is
        not finite, or the loss has no second derivative in some of them.
    """
    if not (num_vectors >= 2 and num_steps >= 2 and 0 < width <= 1):
        raise errors.ConfigError(
            "spectral_density needs num_vectors >= 2, num_steps >= 2 and a "
            f"width in (0, 1], not {num_vectors}, {num_steps} and {width}."
        )
    model = keras_model(model)
    operator = Operator(hessian_of(model, dataset, loss_fn, variables))
    generator = np.random.default_rng(seed)
    quadratures = [
        _quadrature(
            operator, generator.choice([-1.0, 1.0], operator.size), num_steps
        )
        for _ in range(num_vectors)
    ]
    nodes = np.concatenate([nodes for nodes, _ in quadratures])
    weights = np.concatenate([weights for _, weights in quadratures])
    deviation = width * _extent(nodes)
    grid = _grid(nodes, deviation)
    curves = [_smoothed(grid, *found, deviation) for found in quadratures]
    order = np.argsort(nodes)
    return SpectralDensity(
        eigenvalues=grid,
        density=np.mean(curves, axis=0),
        standard_error=np.std(curves, axis=0, ddof=1) / num_vectors**0.5,
        nodes=nodes[order],
        weights=weights[order] / num_vectors,
        num_weights=operator.size,
        num_products=operator.num_products,
    )


def _quadrature(
    operator: Operator, start: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes and weights of the quadrature that starts from a vector.

    Args:
      operator: H.
      start: float64 [size].
      num_steps: largest number of nodes.
    """
    diagonal: list[float] = []
    below: list[float] = []
    basis = np.empty((min(num_steps, operator.size), operator.size), np.float32)
    vector = start / np.linalg.norm(start)
    for step in range(len(basis)):
        basis[step] = vector
        product = operator(vector)
        if step == 0:
            operator.require_curvature(product)
        diagonal.append(float(vector @ product))
        known = basis[: step + 1]
        for _ in range(2):  # once leaves what rounding has left
            product -= (known @ product.astype(np.float32)) @ known
        length = float(np.linalg.norm(product))
        if length <= _ROUNDING * max(map(abs, diagonal + below)):
            break  # the vector is in the span of as many eigenvectors
        below.append(length)
        vector = product / length
    nodes, vectors = scipy.linalg.eigh_tridiagonal(
        diagonal, below[: len(diagonal) - 1]
    )
    return nodes, vectors[0] ** 2


def _extent(nodes: np.ndarray) -> float:
    """Returns the range of the nodes; if all are one, their magnitude."""
    extent, largest = np.ptp(nodes), np.abs(nodes).max()
    return float(extent if extent > _ROUNDING * largest else largest)


def _grid(nodes: np.ndarray, deviation: float) -> np.ndarray:
    """Returns evenly spaced points that hold the density of the nodes."""
    low, high = nodes.min() - _TAIL * deviation, nodes.max() + _TAIL * deviation
    count = int(np.ceil((high - low) / (_SPACING * deviation))) + 1
    return np.linspace(low, high, count)


def _smoothed(
    grid: np.ndarray, nodes: np.ndarray, weights: np.ndarray, deviation: float
) -> np.ndarray:
    """Returns a sum of normal densities, [points].

    Args:
      grid: [points].
      nodes: their means, [nodes].
      weights: [nodes].
      deviation: of all of them.
    """
    distances = (grid[:, None] - nodes) / deviation
    peaks = np.exp(-(distances**2) / 2) / (deviation * np.sqrt(2 * np.pi))
    return peaks @ weights
