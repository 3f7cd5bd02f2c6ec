"""Loss landscapes: the loss on a line or a plane through the weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.quantization.quantize_registry import WEIGHTS


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """The loss around the weights of a network.

    Attributes:
      coordinates: float64 [points], of every direction, in units of the norm
        of a filter; the one in the middle is 0.
      losses: float64 [points], or [points, points] with the first direction
        first, in nats; inf where the network overflows.
      accuracies: likewise, in [0, 1].
      settings: every number and choice that they depend on, for JSON.
    """

    coordinates: np.ndarray
    losses: np.ndarray
    accuracies: np.ndarray
    settings: dict[str, Any]


@errors.typed
def loss_landscape(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    num_directions: int = 2,
    span: float = 1.0,
    num_points: int = 21,
    reference: keras.Model | None = None,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Landscape:
    """Evaluates the loss on a plane, or a line, through the weights.

    `L(w + a dx + b dy)` for a and b in `[-span, span]`, or `L(w + a dx)`,
    where dx and dy are Gaussian and filter-normalized: each of their filters
    has the norm of that filter of w (Li et al. 2018, arXiv 1712.09913,
    section 4). A filter is all that is multiplied to give one output channel.
    Without that a network with large weights looks flat only because a step
    is small for it.

    The Gaussian numbers depend on the seed and on the shapes of the weights
    alone, so that a float model and its quantized twins are cut along the same
    directions. By default each is normalized by its own filters; this leaves
    the shape of a landscape as it is when a ReLU layer is scaled by c and the
    next by 1 / c, and is the choice for models that were trained apart. With
    the float model as `reference` the steps of all twins are the same, to the
    bit, also where few bits have changed the norms: the choice for the
    question what one displacement costs each of them.

    Far from w the loss of a quantized network may rise less than that of its
    float model because its activations are clipped, not because w is flat.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels), cached; read once for each
        point.
      loss_fn: (labels, logits) to the loss of each example.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: given the network that is measured, its weights that move;
        biases and norms stay where they are by default.
      seed: of the directions.
      num_directions: 1 or 2. The line is the plane's first direction.
      span: largest coordinate, in norms of a filter.
      num_points: of each direction; odd, so that w is one of them.
      reference: model of the same weights in shape, by whose filters the
        directions are normalized; by default `model`.
      progress: given all points, yields them one by one, as `tqdm.tqdm` does.

    Raises:
      ConfigError: a setting is out of range.
      DataError: the data set is empty.
      ModelError: the model has no weight to move, its loss is not finite at w,
        or the reference has other weights.
    """
    if not (
        num_directions in (1, 2)
        and 0 < span < np.inf
        and num_points >= 3
        and num_points % 2
    ):
        raise errors.ConfigError(
            "loss_landscape needs num_directions of 1 or 2, a finite span > 0 "
            f"and an odd num_points >= 3, not {num_directions}, {span} and "
            f"{num_points}."
        )
    network = perturbations.measured_model(model, point)
    half = num_points // 2
    coordinates = span * np.arange(-half, half + 1) / half
    shape = (num_points,) * num_directions
    losses, accuracies = np.empty(shape), np.empty(shape)
    # at "latent", because `network` is at `point` already
    with perturbations.neighbourhood(
        network, dataset, loss_fn, point="latent", variables=variables
    ) as near:
        norms = near.originals
        if reference is not None:
            norms = variables(perturbations.measured_model(reference, point))
            _require_same_shapes(reference, norms, model, near.variables)
        directions = filter_normalized(
            network, near.variables, norms, seed, num_directions
        )
        for index in progress(list(np.ndindex(shape))):
            steps = coordinates[list(index)]
            if steps.any():
                found = near.at(_offsets(steps, directions))
            else:
                found = near.loss, near.accuracy
            losses[index], accuracies[index] = found
    losses[np.isnan(losses)] = np.inf
    return Landscape(
        coordinates,
        losses,
        accuracies,
        settings={
            "point": point,
            "seed": seed,
            "num_directions": num_directions,
            "span": span,
            "num_points": num_points,
            "reference": None if reference is None else reference.name,
        },
    )


def filter_normalized(
    network: keras.Model,
    variables: Sequence[tf.Variable],
    weights: Sequence[tf.Tensor],
    seed: int,
    num_directions: int,
) -> list[list[tf.Tensor]]:
    """Returns Gaussian directions whose filters have the norms of weights.

    Args:
      network: whose layers say what a filter is. In other layers than those
        that are quantized, and `EinsumDense`, it is what shares an index of
        the last axis; a vector, such as a bias, is one filter.
      variables: of the network.
      weights: in the shapes of the variables; a filter of zeros does not move.
      seed: of the directions.
      num_directions: of them.

    Returns:
      For each direction a tensor for each variable.
    """
    owners = {
        id(weight): layer
        for layer in network._flatten_layers(include_self=False)
        for weight in layer.weights
    }
    channels = [
        _channel_axes(owners.get(id(variable)), variable.shape.rank)
        for variable in variables
    ]
    return [
        [
            noise
            * tf.math.divide_no_nan(_norms(weight, axes), _norms(noise, axes))
            for noise, weight, axes in zip(
                perturbations.gaussian(
                    variables, seed=seed, draw=draw, adaptive=False
                ),
                weights,
                channels,
                strict=True,
            )
        ]
        for draw in range(num_directions)
    ]


def _channel_axes(
    layer: keras.layers.Layer | None, rank: int
) -> tuple[int, ...]:
    """Returns the axes of a layer's weight that count its output channels."""
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    if rank < 2:
        return ()
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, outputs = re.split(",|->", layer.equation)
        return tuple(i for i, axis in enumerate(kernel) if axis in outputs)
    weight = WEIGHTS.get(type(layer))
    return weight.channel_axes if weight else (-1,)


def _norms(values: tf.Tensor, channel_axes: Sequence[int]) -> tf.Tensor:
    """Returns the norm of each filter, in a shape that broadcasts."""
    channels = {axis % values.shape.rank for axis in channel_axes}
    others = [axis for axis in range(values.shape.rank) if axis not in channels]
    return tf.sqrt(tf.reduce_sum(values**2, axis=others, keepdims=True))


def _offsets(
    steps: np.ndarray, directions: Sequence[Sequence[tf.Tensor]]
) -> list[tf.Tensor]:
    """Returns `a dx + b dy`, a tensor for each variable."""
    return [
        tf.add_n(
            [
                float(step) * part
                for step, part in zip(steps, parts, strict=True)
            ]
        )
        for parts in zip(*directions, strict=True)
    ]


def _require_same_shapes(
    reference: keras.Model,
    weights: Sequence[tf.Variable],
    model: keras.Model,
    variables: Sequence[tf.Variable],
) -> None:
    if [w.shape for w in weights] != [v.shape for v in variables]:
        raise errors.ModelError(
            f"the weights of reference {reference.name!r} are not of the "
            f"shapes of those of {model.name!r}: pass the float model that it "
            "is a twin of."
        )
