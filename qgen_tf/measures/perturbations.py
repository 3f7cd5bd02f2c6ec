"""Noise on the weights of a model, and their exact return."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.evaluate import LossFn, Objective
from qgen_tf.quantization.inference import inference_model

POINTS = ("deployed", "latent")

Variables = Callable[[keras.Model], list[tf.Variable]]


def measured_model(model: keras.Model, point: str) -> keras.Model:
    """Returns the model whose weights a measure perturbs.

    Args:
      model: as trained, float or quantized.
      point: "deployed" for weights around their grid point in the network that
        is shipped, activations quantized; "latent" for the trained weights
        under a live quantizer, which hides most changes below half a step.

    Raises:
      ConfigError: `point` is neither.
    """
    if point == "deployed":
        return inference_model(model).model
    if point == "latent":
        return model
    raise errors.ConfigError(f"point {point!r} is not one of {POINTS}.")


def kernels(model: keras.Model) -> list[tf.Variable]:
    """Returns the trainable weights of two axes or more: no bias, no step."""
    return [
        variable
        for variable in model.trainable_variables
        if variable.shape.rank >= 2 and "log_step" not in variable.name
    ]


@contextlib.contextmanager
def preserved(variables: Sequence[tf.Variable]) -> Iterator[list[tf.Tensor]]:
    """Gives the values of variables and puts them back, to the bit, at exit."""
    originals = [tf.identity(variable) for variable in variables]
    try:
        yield originals
    finally:
        for variable, original in zip(variables, originals, strict=True):
            variable.assign(original)


def gaussian(
    values: Sequence[tf.Tensor], *, seed: int, draw: int, adaptive: bool
) -> list[tf.Tensor]:
    """Returns standard normal noise of the shapes of `values`.

    Args:
      values: weights.
      seed: of the measure; equal seeds give equal noise to every model.
      draw: number of the sample, from 0.
      adaptive: whether each number is multiplied by |w|.
    """
    noise = []
    for index, value in enumerate(values):
        normal = tf.random.stateless_normal(
            value.shape,
            (seed, draw * len(values) + index),
            dtype=value.dtype,
        )
        noise.append(normal * tf.abs(value) if adaptive else normal)
    return noise


@dataclasses.dataclass(frozen=True)
class Probe:
    """A model that can be evaluated under weight noise.

    Attributes:
      loss: without noise, in nats; finite.
      accuracy: without noise, in [0, 1].
      under_noise: given the number of a noise draw and its scale, the loss and
        the accuracy. Noise that makes the model overflow is no error: see
        `evaluate.Objective`.
    """

    loss: float
    accuracy: float
    under_noise: Callable[[int, float], tuple[float, float]]


@contextlib.contextmanager
def gaussian_probe(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn,
    *,
    point: str,
    variables: Variables,
    seed: int,
    adaptive: bool,
) -> Iterator[Probe]:
    """Evaluates a model and lets it be evaluated under Gaussian weight noise.

    The arguments are those of a measure.

    Raises:
      ConfigError: `point` is not one of `POINTS`.
      ModelError: there is no weight to perturb, or the loss is not finite.
    """
    network = measured_model(model, point)
    chosen = variables(network)
    if not chosen:
        raise errors.ModelError(
            f"model {model.name!r} has no weight to perturb."
        )
    objective = Objective(network, dataset, loss_fn)
    loss, accuracy = objective()
    if not math.isfinite(loss):
        raise errors.ModelError(
            f"the loss of model {model.name!r} is {loss}: training has "
            "diverged; lower the learning rate."
        )
    with preserved(chosen) as originals:

        def under_noise(draw: int, scale: float) -> tuple[float, float]:
            noise = gaussian(originals, seed=seed, draw=draw, adaptive=adaptive)
            for variable, original, change in zip(
                chosen, originals, noise, strict=True
            ):
                variable.assign(original + scale * change)
            return objective()

        yield Probe(loss, accuracy, under_noise)
