"""Noise on the weights of a model, and their exact return."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures.arguments import chosen_weights, keras_model
from qgen_tf.measures.losses import LossFn
from qgen_tf.measures.objective import Objective
from qgen_tf.quantization.inference import InferenceModel, inference_model

POINTS = ("deployed", "latent")

Variables = Callable[[keras.Model], list[tf.Variable]]


def measured_model(
    model: keras.Model | InferenceModel, point: str
) -> keras.Model:
    """Returns the model whose weights a measure perturbs.

    Args:
      model: as trained, float or quantized; or a deployed network, such as
        that of a file, which measures take in the place of a model.
      point: "deployed" for weights around their grid point in the network that
        is shipped, activations quantized; "latent" for the trained weights
        under a live quantizer, which hides most changes below half a step.

    Raises:
      ConfigError: `point` is neither, or "latent" of a deployed network.
    """
    if point == "deployed":
        return deployed_network(model).model
    if point == "latent" and isinstance(model, InferenceModel):
        raise errors.ConfigError(
            f"{model.name!r} is a deployed network, which has no latent "
            'weights: measure it at point="deployed".'
        )
    if point == "latent":
        return keras_model(model)
    raise errors.ConfigError(f"point {point!r} is not one of {POINTS}.")


def kernels(model: keras.Model) -> list[tf.Variable]:
    """Returns the trainable weights of two axes or more: no bias, no step."""
    return [
        variable
        for variable in model.trainable_variables
        if variable.shape.rank >= 2 and "log_step" not in variable.name
    ]


@sharing.remembered
def deployed_network(model: keras.Model | InferenceModel) -> InferenceModel:
    """Returns `inference_model(model)`, under the strategy of the model.

    A deployed network is returned as it is.
    """
    if isinstance(model, InferenceModel):
        return model
    with keras_model(model).distribute_strategy.scope():
        return inference_model(model)


@contextlib.contextmanager
def preserved(variables: Sequence[tf.Variable]) -> Iterator[list[tf.Tensor]]:
    """Gives the values of variables and puts them back, to the bit, at exit."""
    originals = [tf.identity(variable) for variable in variables]
    try:
        yield originals
    finally:
        _put_back(variables, originals)


def _put_back(
    variables: Sequence[tf.Variable], originals: Sequence[tf.Tensor]
) -> None:
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
    # of variables a compiled function would keep the first that it has seen
    tensors = [tf.convert_to_tensor(value) for value in values]
    first_seed = tf.constant([seed, draw * len(tensors)])
    return _compiled_gaussian(tensors, first_seed, adaptive)


@tf.function(reduce_retracing=True)
def _compiled_gaussian(values, first_seed, adaptive):
    noise = []
    for index, value in enumerate(values):
        normal = tf.random.stateless_normal(
            tf.shape(value), first_seed + [0, index], dtype=value.dtype
        )
        noise.append(normal * tf.abs(value) if adaptive else normal)
    return noise


class Neighbourhood:
    """The loss of a network at its weights, and near them.

    Attributes:
      objective: loss and accuracy at the values that the variables have.
      variables: the weights that are moved.
      originals: their values.
      loss: at these, in nats; finite.
      accuracy: at these, in [0, 1].
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: tf.data.Dataset,
        loss_fn: LossFn,
        point: str,
        variables: Variables,
    ):
        """Builds the network and evaluates it; see `neighbourhood`."""
        network = measured_model(model, point)
        self.variables = chosen_weights(network, variables)
        if not self.variables:
            raise errors.ModelError(
                f"model {model.name!r} has no weight to perturb."
            )
        self.objective = Objective(network, dataset, loss_fn, self.variables)
        self.originals = [tf.identity(variable) for variable in self.variables]
        self._move = tf.function(self._moved, autograph=False)
        self._is_moved = False
        self.loss, self.accuracy = self.objective()
        if not math.isfinite(self.loss):
            raise errors.ModelError(
                f"the loss of model {model.name!r} is {self.loss}: training "
                "has diverged; lower the learning rate."
            )

    @property
    def num_weights(self) -> int:
        """Number of weights that are moved."""
        return sum(v.shape.num_elements() for v in self.variables)

    def move(self, offsets: Sequence[tf.Tensor], scale: float = 1.0) -> None:
        """Gives the variables the values `original + scale * offset`."""
        self._is_moved = True
        # of variables a compiled function would keep the first it has seen
        tensors = [tf.convert_to_tensor(offset) for offset in offsets]
        self._move(tensors, tf.constant(scale, tf.float64))

    def put_back(self) -> None:
        """Gives the variables their original values, to the bit."""
        if self._is_moved:
            _put_back(self.variables, self.originals)
            self._is_moved = False

    def _moved(self, offsets: Sequence[tf.Tensor], scale: tf.Tensor) -> None:
        for variable, original, offset in zip(
            self.variables, self.originals, offsets, strict=True
        ):
            variable.assign(original + tf.cast(scale, offset.dtype) * offset)

    def at(
        self, offsets: Sequence[tf.Tensor], scale: float = 1.0
    ) -> tuple[float, float]:
        """Returns loss and accuracy at `original + scale * offset`.

        Weights that make the model overflow are no error: see `Objective`.
        """
        self.move(offsets, scale)
        return self.objective()


_remembered_neighbourhood = sharing.remembered(Neighbourhood)


@contextlib.contextmanager
def neighbourhood(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn,
    *,
    point: str,
    variables: Variables,
) -> Iterator[Neighbourhood]:
    """Lets the loss be evaluated near the weights of a model.

    The weights are put back, to the bit, at exit. The arguments are those of a
    measure.

    Raises:
      ConfigError: `point` is not one of `POINTS`.
      DataError: the data set is empty.
      ModelError: there is no weight to perturb, or the loss is not finite.
    """
    near = _remembered_neighbourhood(model, dataset, loss_fn, point, variables)
    with preserved(near.variables):
        yield near
