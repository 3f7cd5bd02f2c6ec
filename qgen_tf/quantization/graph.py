"""Reads and rebuilds the layer graph of a flat Functional model.

Every edit of a model in this package is one `rebuild`: a walk over the layer
calls in topological order that asks, call by call, what stands in its place.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from qgen_tf import compat, errors
from qgen_tf.compat import keras

Layer: TypeAlias = keras.layers.Layer


def require_functional(model: keras.Model) -> None:
    """Raises unless `model` is built, Functional, flat, and calls layers once.

    Raises:
      ModelError: says what the model is instead.
    """
    compat.require_legacy(model)
    if not getattr(model, "_is_graph_network", False):
        raise errors.ModelError(
            f"model {model.name!r} is not a Functional model: build it with "
            "keras.Model(inputs, outputs); subclassed and unbuilt models have "
            "no graph to read."
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise errors.ModelError(
                f"model {model.name!r} contains the model {layer.name!r}: "
                "build it flat, on the inner model's input and output."
            )
    calls = collections.Counter(node.layer.name for node in nodes(model))
    for name, count in calls.items():
        if count > 1:
            raise errors.ModelError(
                f"model {model.name!r} calls the layer {name!r} {count} times: "
                "give each call a layer of its own, since each has its own "
                "step sizes."
            )


def nodes(model: keras.Model) -> Iterator[Any]:
    """Yields the Keras nodes (layer calls) of `model`, inputs first."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def topological_layers(model: keras.Model) -> list[Layer]:
    """Returns the layers, inputs first."""
    return [node.layer for node in nodes(model)]


def consumers(model: keras.Model) -> dict[str, list[Layer]]:
    """Maps each layer's name to the layers that read its output."""
    readers: dict[str, list[Layer]] = {n.layer.name: [] for n in nodes(model)}
    for node in nodes(model):
        for producer, *_ in node.iterate_inbound():
            readers[producer.name].append(node.layer)
    return readers


def producers(model: keras.Model) -> dict[str, list[Layer]]:
    """Maps each layer's name to the layers whose outputs it reads."""
    sources: dict[str, list[Layer]] = {n.layer.name: [] for n in nodes(model)}
    for node in nodes(model):
        for producer, *_ in node.iterate_inbound():
            sources[node.layer.name].append(producer)
    return sources


def rebuild(
    model: keras.Model,
    call: Callable[[Layer, Callable[..., Any]], Any],
    *,
    name: str,
) -> keras.Model:
    """Rebuilds `model`, letting `call` decide what stands for each layer call.

    Args:
      model: a flat Functional model; it is left as it is.
      call: given a layer of `model` and a function that applies any callable
        to the arguments of this layer call in the new graph, returns the
        tensors that stand for the layer's output. For an `InputLayer` the
        arguments are the new input tensor itself.
      name: of the new model.

    Returns:
      A new Functional model. Layers are shared with `model` only where `call`
      applies the old layer itself.
    """
    new_tensors: dict[int, Any] = {}

    def translate(structure: Any) -> Any:
        return tf.nest.map_structure(
            lambda leaf: new_tensors.get(id(leaf), leaf), structure
        )

    new_inputs: dict[int, Any] = {}
    for node in nodes(model):
        if node.is_input:
            tensor = keras.layers.Input(
                shape=node.outputs.shape[1:],
                dtype=node.outputs.dtype,
                name=node.layer.name,
            )
            new_inputs[id(node.outputs)] = tensor
            args, kwargs = (tensor,), {}
        else:
            args = translate(node.call_args)
            kwargs = translate(node.call_kwargs)
        outputs = call(
            node.layer,
            lambda function, args=args, kwargs=kwargs: function(
                *args, **kwargs
            ),
        )
        for old, new in zip(
            tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True
        ):
            new_tensors[id(old)] = new
    inputs = tf.nest.map_structure(
        lambda tensor: new_inputs[id(tensor)], model.input
    )
    return keras.Model(inputs, translate(model.output), name=name)
