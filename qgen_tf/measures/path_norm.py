"""The path norm of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult
from qgen_tf.quantization import affine, graph
from qgen_tf.quantization.grids import ActivationGrid, WeightGrid
from qgen_tf.quantization.quantize_registry import WEIGHTS, Role, role

layers = keras.layers
Layer: TypeAlias = keras.layers.Layer

# They sum, choose or move values, and have no weight.
_WITHOUT_WEIGHTS = (
    layers.Add,
    layers.AveragePooling2D,
    layers.Concatenate,
    layers.GlobalAveragePooling2D,
    layers.Maximum,
    layers.UpSampling2D,
)


@errors.typed
def path_norm(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
) -> MeasureResult:
    """Logarithm of the sum over paths of the products of squared weights.

    `log sum_paths prod_(w on the path) w^2` over all paths from an input to an
    output (Neyshabur et al. 2015, arXiv 1503.00036; Jiang et al. 2020, arXiv
    1912.02178, equation 44, whose value is the sum). It is one forward pass,
    on an input of ones, of the network with squared weights and no biases. A
    layer with ReLU scaled by c and the next by 1/c leave it as it is.

    Pooling counts as it computes: a maximum takes the heaviest path, an average
    the mean. BatchNorm is folded; factors that could not be folded are squared
    as weights are. Grids of activations and a softmax at the end are left out.

    Args:
      model: as trained, float or quantized.
      dataset: only there for the common interface, as is `loss_fn`.
      loss_fn: see there.
      point: "deployed" for the weights on their grids; "latent" for those
        before they were rounded, BatchNorm folded into them all the same.
      variables: only there for the common interface: a path needs all layers.
      seed: likewise: nothing is drawn.

    Raises:
      ConfigError: `point` is not known.
      ModelError: a layer does not sum over paths, or the sum is zero or not
        finite in float64.
    """
    if point not in perturbations.POINTS:
        raise errors.ConfigError(
            f"point {point!r} is not one of {perturbations.POINTS}."
        )
    deployed = perturbations.deployed_network(model)
    grids = deployed.weight_grids if point == "latent" else {}
    squared = graph.rebuild(
        deployed.model, _squared(deployed.model, grids), name=model.name
    )
    ones = [
        tf.ones((1, *tensor.shape[1:]), tensor.dtype)
        for tensor in squared.inputs
    ]
    outputs = tf.nest.flatten(squared(ones[0] if len(ones) == 1 else ones))
    total = float(sum(tf.reduce_sum(output) for output in outputs))
    if not 0 < total < np.inf:
        raise errors.ModelError(
            f"the path norm of model {model.name!r} is {total}, which has no "
            "logarithm."
        )
    return MeasureResult(
        name="path_norm",
        value=float(np.log(total)),
        unit="log",
        standard_error=0.0,
        converged=True,
        settings={"point": point, "seed": seed},
    )


def _squared(
    network: keras.Model, grids: dict[str, WeightGrid]
) -> Callable[[Layer, Callable[..., Any]], Any]:
    """Returns what stands for each layer call; see `graph.rebuild`.

    Args:
      network: deployed.
      grids: of the layers whose weights are taken before rounding.
    """
    last = {tensor.node.layer.name for tensor in network.outputs}

    def call(layer: Layer, apply: Callable[..., Any]) -> Any:
        if isinstance(layer, layers.InputLayer):
            return apply(lambda tensor: tf.cast(tensor, tf.float64))
        if _passes(layer) or role(layer) is Role.FIXED and layer.name in last:
            return apply(lambda tensor: tensor)
        if type(layer) in WEIGHTS:
            latent = grids[layer.name].latent if layer.name in grids else None
            return apply(lambda tensor: _linear(layer, latent, tensor))
        if isinstance(layer, affine.ChannelAffine):
            return apply(lambda x: x * _square(layer.kernel.numpy()))
        if role(layer) is Role.AFFINE:
            return apply(lambda x: x * _square(_factor(layer, x)))
        if isinstance(layer, _WITHOUT_WEIGHTS) or role(layer) is Role.SHAPE:
            config = {**layer.get_config(), "dtype": "float64"}
            return apply(type(layer).from_config(config))
        raise errors.ModelError(
            f"layer {layer.name!r} ({type(layer).__name__}) of model "
            f"{network.name!r} does not sum over paths, as convolutions, ReLU, "
            "pooling and additions do: there is no path norm."
        )

    return call


def _passes(layer: Layer) -> bool:
    """Whether the layer leaves values as they are that are not below zero.

    A limit such as that of ReLU6 does not belong to a path.
    """
    return (
        isinstance(layer, ActivationGrid | layers.LeakyReLU)
        or role(layer) is Role.RELU
    )


def _square(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) ** 2


def _factor(layer: Layer, tensor: Any) -> np.ndarray:
    return affine.coefficients(layer, tensor.shape[-1])[0]


def _linear(layer: Any, latent: np.ndarray | None, tensor: Any) -> Any:
    """Calls a layer with its weights squared, without bias and activation."""
    config = {"use_bias": False, "activation": "linear", "dtype": "float64"}
    copy = type(layer).from_config({**layer.get_config(), **config})
    outputs = copy(tensor)
    kernel = getattr(layer, WEIGHTS[type(layer)].attribute).numpy()
    copy.set_weights([_square(kernel if latent is None else latent)])
    return outputs
