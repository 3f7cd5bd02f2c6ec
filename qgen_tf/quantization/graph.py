"""Reads and rebuilds the layer graph of a Functional model.

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
    """Raises unless `model` is built, Functional, and calls layers once.

    Models inside of it must be so, too.

    Raises:
      ModelError: says what the model is instead.
    """
    compat.require_legacy(model)
    _require_graph(model)
    calls = collections.Counter(id(node.layer) for node in inner_nodes(model))
    for node in inner_nodes(model):
        count = calls[id(node.layer)]
        if count > 1:
            raise errors.ModelError(
                f"model {model.name!r} calls the layer {node.layer.name!r} "
                f"{count} times: give each call a layer of its own, since each "
                "has its own step sizes."
            )


def _require_graph(model: keras.Model, outer: str = "") -> None:
    if not getattr(model, "_is_graph_network", False):
        raise errors.ModelError(
            f"model {model.name!r}{outer} is not a Functional model: build it "
            "with keras.Model(inputs, outputs); subclassed and unbuilt models "
            "have no graph to read."
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _require_graph(layer, f" inside {model.name!r}")


def nodes(model: keras.Model) -> Iterator[Any]:
    """Yields the Keras nodes (layer calls) of `model`, inputs first."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def inner_nodes(model: keras.Model) -> Iterator[Any]:
    """Yields the nodes of `model`, those of inner models in their place."""
    for node in nodes(model):
        if isinstance(node.layer, keras.Model):
            yield from (
                inner for inner in inner_nodes(node.layer) if not inner.is_input
            )
        else:
            yield node


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


def copy_weights(source: Layer, target: Layer) -> None:
    """Gives `target` the weights of `source`, a built layer of its kind.

    What else the target has, behind those, stays as it is.
    """
    weights = source.get_weights()
    target.set_weights([*weights, *target.get_weights()[len(weights) :]])
    if isinstance(target, keras.layers.Normalization):
        target.finalize_state()  # it computes with what it derived from them


def rebuild(
    model: keras.Model,
    call: Callable[[Layer, Callable[..., Any]], Any],
    *,
    name: str,
) -> keras.Model:
    """Rebuilds `model`, letting `call` decide what stands for each layer call.

    Args:
      model: a Functional model; it is left as it is. The layers of models
        inside of it are called in their place: the new model is flat.
      call: given a layer of `model` and a function that applies any callable
        to the arguments of this layer call in the new graph, returns the
        tensors that stand for the layer's output. For an `InputLayer` the
        arguments are the new input tensor itself.
      name: of the new model.

    Returns:
      A new Functional model. Layers are shared with `model` only where `call`
      applies the old layer itself.
    """
    inputs = tf.nest.map_structure(
        lambda tensor: keras.layers.Input(
            shape=tensor.shape[1:],
            dtype=tensor.dtype,
            name=tensor.node.layer.name,
        ),
        model.input,
    )
    called = [
        call(tensor.node.layer, _applied_to((new,), {}))
        for tensor, new in zip(
            tf.nest.flatten(model.input), tf.nest.flatten(inputs), strict=True
        )
    ]
    return keras.Model(inputs, inline(model, called, call), name=name)


def inline(
    model: keras.Model, inputs: list[Any], call: Callable[..., Any]
) -> Any:
    """Rebuilds what `model` computes from `inputs`; returns its outputs."""
    new_tensors = {
        id(old): new
        for old, new in zip(tf.nest.flatten(model.input), inputs, strict=True)
    }

    def translate(structure: Any) -> Any:
        return tf.nest.map_structure(
            lambda leaf: new_tensors.get(id(leaf), leaf), structure
        )

    for node in nodes(model):
        if node.is_input:
            continue
        args, kwargs = translate(node.call_args), translate(node.call_kwargs)
        if isinstance(node.layer, keras.Model):
            outputs = inline(node.layer, tf.nest.flatten(args[0]), call)
        else:
            outputs = call(node.layer, _applied_to(args, kwargs))
        for old, new in zip(
            tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True
        ):
            new_tensors[id(old)] = new
    return translate(model.output)


def _applied_to(args: Any, kwargs: Any) -> Callable[..., Any]:
    return lambda function: function(*args, **kwargs)
