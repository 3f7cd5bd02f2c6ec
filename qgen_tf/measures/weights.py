"""Weights of a model and the layers that own them."""

from __future__ import annotations

import functools

import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import chosen_weights
from qgen_tf.measures.perturbations import Variables
from qgen_tf.quantization.quantize import unwrapped


def differentiated(
    model: keras.Model, variables: Variables
) -> list[tf.Variable]:
    """Returns the weights of a model in which derivatives are taken.

    Raises:
      ModelError: it has none of them.
    """
    found = chosen_weights(model, variables)
    if not found:
        raise errors.ModelError(
            f"model {model.name!r} has no weight to differentiate in."
        )
    return found


def owner(model: keras.Model, variable: tf.Variable) -> keras.layers.Layer:
    """Returns the innermost layer of a model that has the variable."""
    (*_, layer) = (
        layer
        for layer in model._flatten_layers(include_self=False)
        if any(weight is variable for weight in layer.weights)
    )
    return layer


def weight_name(model: keras.Model, variable: tf.Variable) -> tuple[str, str]:
    """Returns the names of the owner of a variable, and its own in there."""
    name = variable.name.split(":")[0].split("/")[-1]
    return owner(model, variable).name, name


@errors.typed
@functools.cache
def of_layer(name: str) -> Variables:
    """Chooses the kernels of one layer, as the `variables` of a measure.

    Args:
      name: of the layer in the float model, or that of its wrapper.

    Returns:
      A function from a model to the weights. It raises a ModelError if the
      model has no such layer, or that has no kernel.
    """

    def chosen(model: keras.Model) -> list[tf.Variable]:
        kernels: dict[str, list[tf.Variable]] = {}
        for variable in perturbations.kernels(model):
            layer = owner(model, variable)
            for known in {layer.name, unwrapped(layer).name}:
                kernels.setdefault(known, []).append(variable)
        if name not in kernels:
            raise errors.ModelError(
                f"model {model.name!r} has no kernel in a layer {name!r}: "
                f"choose one of {', '.join(sorted(kernels))}."
            )
        return kernels[name]

    return chosen
