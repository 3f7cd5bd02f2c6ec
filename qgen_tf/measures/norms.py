"""Norms of the weights: the baselines that flatness is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import chosen_weights
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.spectral_norm import spectral_norm
from qgen_tf.measures.weights import owner, weight_name


@errors.typed
def parameter_norm(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
) -> MeasureResult:
    """Sum of the squares of all weights.

    `||w||^2 = sum_l ||W_l||_F^2` (Jiang et al. 2020, arXiv 1912.02178,
    equation 42).

    Args:
      model: as trained, float or quantized.
      dataset: only there for the common interface, as is `loss_fn`.
      loss_fn: see there.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
        BatchNorm makes the norm of latent weights meaningless: they may have
        any scale.
      variables: given the network that is measured, its weights of interest.
      seed: only there for the common interface: nothing is drawn.

    Raises:
      ConfigError: `point` is not known.
      ModelError: the model has none of the weights, or they are not finite.
    """
    kernels = _kernels(model, point, variables)
    return _result(
        "parameter_norm",
        [(kernel, _squared_norm(kernel.values)) for kernel in kernels],
        point=point,
        seed=seed,
    )


@errors.typed
def distance_from_initialization(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    initial: keras.Model | None = None,
) -> MeasureResult:
    """Squared distance of the weights from those that training started with.

    `||w - w0||^2 = sum_l ||W_l - W0_l||_F^2` (Jiang et al. 2020, arXiv
    1912.02178, equation 40).

    Args:
      model: as trained, float or quantized.
      dataset: only there for the common interface, as is `loss_fn`.
      loss_fn: see there.
      point: of both models; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights of interest.
      seed: only there for the common interface: nothing is drawn.
      initial: a model of the same architecture with the initial weights, float
        or quantized.

    Raises:
      ConfigError: `initial` is missing, or `point` is not known.
      ModelError: a model has none of the weights, they are not finite, or the
        two models differ in their shapes.
    """
    if initial is None:
        raise errors.ConfigError(
            "distance_from_initialization needs the model with its initial "
            "weights: pass initial=..."
        )
    trained, start = (
        _kernels(each, point, variables) for each in (model, initial)
    )
    shapes = [[k.values.shape for k in kernels] for kernels in (trained, start)]
    if shapes[0] != shapes[1]:
        raise errors.ModelError(
            f"models {model.name!r} and {initial.name!r} have weights of the "
            f"shapes {shapes[0]} and {shapes[1]}: pass an initial model of the "
            "same architecture."
        )
    return _result(
        "distance_from_initialization",
        [
            (kernel, _squared_norm(kernel.values - other.values))
            for kernel, other in zip(trained, start, strict=True)
        ],
        point=point,
        seed=seed,
    )


@errors.typed
def frobenius_product(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
) -> MeasureResult:
    """Logarithm of the product of the layers' squared Frobenius norms.

    `sum_l log ||W_l||_F^2` (Jiang et al. 2020, arXiv 1912.02178, equation 37).

    Args:
      model: as trained, float or quantized.
      dataset: only there for the common interface, as is `loss_fn`.
      loss_fn: see there.
      point: "deployed" or "latent"; see `parameter_norm`.
      variables: given the network that is measured, its weights of interest.
      seed: only there for the common interface: nothing is drawn.

    Raises:
      ConfigError: `point` is not known.
      ModelError: the model has none of the weights, they are not finite, or
        those of a layer are all zero.
    """
    kernels = _kernels(model, point, variables)
    _require_nonzero(model, kernels)
    return _result(
        "frobenius_product",
        [(kernel, _squared_norm(kernel.values)) for kernel in kernels],
        logarithm=True,
        point=point,
        seed=seed,
    )


@errors.typed
def spectral_product(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    tolerance: float = 1e-4,
) -> MeasureResult:
    """Logarithm of the product of the layers' squared spectral norms.

    `sum_l log ||W_l||_2^2` (Jiang et al. 2020, arXiv 1912.02178, equation 32),
    where a convolution counts as the linear map that it is on its images, with
    their borders, and not as its reshaped kernel: see `spectral_norm`.

    Args:
      model: as trained, float or quantized.
      dataset: only there for the common interface, as is `loss_fn`.
      loss_fn: see there.
      point: "deployed" or "latent"; see `parameter_norm`.
      variables: given the network that is measured, its weights of interest.
      seed: of the first vectors of the search.
      tolerance: relative accuracy of the squared norms.

    Raises:
      ConfigError: a setting is out of range.
      ModelError: the model has none of the weights, they are not finite, those
        of a layer are all zero, or a layer is not known as a linear map.
    """
    if not 0 < tolerance < 1:
        raise errors.ConfigError(
            f"spectral_product needs a tolerance in (0, 1), not {tolerance}."
        )
    kernels = _kernels(model, point, variables)
    _require_nonzero(model, kernels)
    norms = [
        spectral_norm(k.owner, k.values, tolerance=tolerance, seed=seed)
        for k in kernels
    ]
    return _result(
        "spectral_product",
        [
            (kernel, norm**2)
            for kernel, norm in zip(kernels, norms, strict=True)
        ],
        logarithm=True,
        point=point,
        seed=seed,
        tolerance=tolerance,
    )


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A weight that is measured.

    Attributes:
      owner: the layer that has it.
      name: of the layer and, in there, of the weight.
      values: float64.
    """

    owner: keras.layers.Layer
    name: str
    values: np.ndarray


def _kernels(
    model: keras.Model, point: str, variables: Variables
) -> list[_Kernel]:
    network = perturbations.measured_model(model, point)
    kernels = [
        _Kernel(
            owner(network, variable),
            "/".join(weight_name(network, variable)),
            variable.numpy().astype(np.float64),
        )
        for variable in chosen_weights(network, variables)
    ]
    if not kernels:
        raise errors.ModelError(
            f"model {model.name!r} has no weight to take the norm of."
        )
    for kernel in kernels:
        if not np.isfinite(kernel.values).all():
            raise errors.ModelError(
                f"weight {kernel.name!r} of model {model.name!r} is not "
                "finite: training has diverged; lower the learning rate."
            )
    return kernels


def _require_nonzero(model: keras.Model, kernels: Sequence[_Kernel]) -> None:
    for kernel in kernels:
        if not kernel.values.any():
            raise errors.ModelError(
                f"weight {kernel.name!r} of model {model.name!r} is all zero: "
                "a product of norms has no logarithm."
            )


def _squared_norm(values: np.ndarray) -> float:
    return float((values**2).sum())


def _result(
    name: str,
    squared_norms: Sequence[tuple[_Kernel, float]],
    *,
    logarithm: bool = False,
    **settings: Any,
) -> MeasureResult:
    """Returns the sum over layers of squared norms, or of their logarithms."""
    squares = np.array([square for _, square in squared_norms])
    return MeasureResult(
        name=name,
        value=float((np.log(squares) if logarithm else squares).sum()),
        unit="log" if logarithm else "weight^2",
        standard_error=0.0,
        converged=True,
        settings=settings,
        details={
            "layers": [
                {"weight": kernel.name, "squared_norm": square}
                for kernel, square in squared_norms
            ]
        },
    )
