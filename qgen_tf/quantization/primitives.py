"""Rewrites a float model into layers that an integer network has.

The rewritten model is flat and computes the same function: models inside of
it are opened, an activation function behind a convolution is a layer of its
own unless the runtime fuses it, and composite layers are taken apart.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from tf_keras.src.engine.keras_tensor import KerasTensor

from qgen_tf.compat import keras
from qgen_tf.layers import AttentionBias, PositionEmbedding
from qgen_tf.quantization import graph
from qgen_tf.quantization.key_mask import KeyMask
from qgen_tf.quantization.quantize_registry import WEIGHTS, activation_name

layers = keras.layers
Layer: TypeAlias = keras.layers.Layer
Call: TypeAlias = Callable[..., Any]


def primitive_model(model: keras.Model) -> keras.Model:
    """Returns a flat copy of `model` made of primitive layers.

    | layer                      | becomes                                    |
    | -------------------------- | ------------------------------------------ |
    | a Functional model         | its layers, named as there if that is free |
    | `SeparableConv2D`          | `<name>_depthwise`, `<name>_pointwise`     |
    | `EinsumDense`, if it is a  | `Dense` between two `Reshape`              |
    | matrix product             |                                            |
    | activation other than ReLU | `Activation` behind the layer              |
    | swish                      | `<name>_sigmoid` and `Multiply`            |
    | `PositionEmbedding` with   | `ZeroPadding1D` and one without, in whose  |
    | a class token              | first row the token is                     |
    | `AttentionBias` with mask  | `AttentionBias` without, and `KeyMask`     |
    | `x + y`, `x * y` on        | `Add`, `Multiply`, or `Rescaling` where    |
    | tensors, `tf.nn.relu(x)`   | one operand is a number; `ReLU`            |

    Other layers are copied, weights included.

    Args:
      model: a Functional float model; it is left as it is.
    """
    names = _unique_names(model)

    def call(layer: Layer, apply: Callable[[Call], Any]) -> Any:
        if isinstance(layer, layers.InputLayer):
            return apply(lambda tensor: tensor)
        expand = _EXPANSIONS.get(_kind(layer), _copied)
        return apply(functools.partial(expand, layer, names[id(layer)]))

    return graph.rebuild(model, call, name=model.name)


def _kind(layer: Layer) -> str:
    """Returns the name of the class; "" if it is neither Keras's nor ours."""
    module, name = type(layer).__module__, type(layer).__name__
    return name if module.startswith(("tf_keras.", "qgen_tf.")) else ""


def _unique_names(model: keras.Model) -> dict[int, str]:
    """Maps ids of layers to names; the inner of two equal ones is prefixed."""
    leaves = _leaves(model, prefix="")
    counts = collections.Counter(layer.name for layer, _ in leaves)
    return {
        id(layer): layer.name
        if counts[layer.name] == 1
        else f"{prefix}{layer.name}"
        for layer, prefix in leaves
    }


def _leaves(model: keras.Model, prefix: str) -> list[tuple[Layer, str]]:
    """Returns the layers that are no models, each with its models' names."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _leaves(layer, f"{prefix}{layer.name}_")
        elif not (prefix and isinstance(layer, layers.InputLayer)):
            found.append((layer, prefix))
    return found


def _copied(layer: Layer, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a copy of the layer; what cannot be fused stands behind it."""
    config = {**layer.get_config(), "name": name}
    splits = type(layer) in WEIGHTS and activation_name(layer) not in (
        "linear",
        "relu",
    )
    if splits:
        config["activation"] = "linear"
    copy = type(layer).from_config(config)
    outputs = copy(*args, **kwargs)
    graph.copy_weights(layer, copy)
    return _activated(outputs, layer.activation, name) if splits else outputs


def _activated(x: Any, function: Any, name: str) -> Any:
    """Applies the activation function of the layer `name` to its output."""
    activation = layers.Activation(function)
    label = activation_name(activation) or "activation"
    return _activation(activation, f"{name}_{label}", x)


def _activation(layer: Layer, name: str, x: Any) -> Any:
    function = activation_name(layer)
    if function == "relu6":
        return layers.ReLU(6.0, name=name)(x)
    if function == "swish":
        gate = layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)
        return layers.Multiply(name=name)([x, gate])
    return layers.Activation(function or layer.activation, name=name)(x)


def _separable_conv(layer: Layer, name: str, x: Any) -> Any:
    depthwise = layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        trainable=layer.trainable,
        name=f"{name}_depthwise",
    )
    pointwise = layers.Conv2D(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        trainable=layer.trainable,
        name=f"{name}_pointwise",
    )
    depthwise_kernel, *others = layer.get_weights()
    x = depthwise(x)
    depthwise.set_weights([depthwise_kernel])
    pointwise.build(x.shape)
    pointwise.set_weights(others)
    return _copied(pointwise, pointwise.name, x)


def _einsum_dense(layer: Layer, name: str, x: Any) -> Any:
    """Calls a `Dense` on flat features if the equation is a matrix product."""
    product = _matrix_product(layer)
    if product is None:
        return _copied(layer, name, x)
    contracted, free = product
    leading = x.shape[1 : x.shape.rank - contracted]
    units = layer.kernel.shape[contracted:]
    if contracted > 1:
        x = layers.Reshape((*leading, -1), name=f"{name}_flat")(x)
    dense = layers.Dense(
        units.num_elements(),
        use_bias=layer.bias is not None,
        kernel_regularizer=layer.kernel_regularizer,
        bias_regularizer=layer.bias_regularizer,
        trainable=layer.trainable,
        name=name,
    )
    outputs = dense(x)
    kernel, *bias = layer.get_weights()
    dense.set_weights(
        [
            kernel.reshape(-1, units.num_elements()),
            *(values.reshape(-1) for values in bias),
        ]
    )
    if activation_name(layer) != "linear":
        outputs = _activated(outputs, layer.activation, name)
    if free > 1:
        outputs = layers.Reshape((*leading, *units), name=f"{name}_axes")(
            outputs
        )
    return outputs


def _matrix_product(layer: Layer) -> tuple[int, int] | None:
    """Returns how many axes a product sums over, and how many it adds.

    None unless the last axes of the input meet the first ones of the kernel,
    and the other axes of both follow each other in the output.
    """
    operands, output = layer.equation.replace("...", "0").split("->")
    inputs, kernel = operands.split(",")
    contracted = sum(label not in output for label in kernel)
    free = kernel[contracted:]
    is_product = (
        contracted > 0
        and inputs[-contracted:] == kernel[:contracted]
        and output == inputs[:-contracted] + free
        and (
            layer.bias is None
            or layer.bias.shape == layer.kernel.shape[contracted:]
        )
    )
    return (contracted, len(free)) if is_product else None


def _position_embedding(layer: Layer, name: str, x: Any) -> Any:
    if layer.class_token is None:
        return _copied(layer, name, x)
    x = layers.ZeroPadding1D((1, 0), name=f"{name}_class_token")(x)
    embedding = PositionEmbedding(trainable=layer.trainable, name=name)
    outputs = embedding(x)
    embedding.set_weights([layer.constant().numpy()])
    return outputs


def _attention_bias(layer: Layer, name: str, x: Any) -> Any:
    if layer.mask is None:
        return _copied(layer, name, x)
    config = {**layer.get_config(), "mask": None, "name": name}
    bias = AttentionBias.from_config(config)
    outputs = bias(x)
    graph.copy_weights(layer, bias)
    return KeyMask(layer.mask, layer.num_heads, name=f"{name}_mask")(outputs)


def _operator(layer: Layer, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls the layer that means the same as arithmetic on tensors, if any."""
    tensors = [arg for arg in args if isinstance(arg, KerasTensor)]
    others = [arg for arg in args if not isinstance(arg, KerasTensor)]
    named = {key: value for key, value in kwargs.items() if value is not None}
    kind = layer.symbol
    if not named and len(args) == len(tensors):
        if kind in _OF_TENSORS and len(tensors) == _OF_TENSORS[kind][0]:
            build = _OF_TENSORS[kind][1]
            inputs = tensors if len(tensors) > 1 else tensors[0]
            return build(name=name)(inputs)
    elif not named and len(tensors) == len(others) == 1 and _is_number(*others):
        tensor_first = args[0] is tensors[0]
        if kind in _OF_NUMBERS and (tensor_first or kind in _SYMMETRIC):
            scale, offset = _OF_NUMBERS[kind](float(others[0]))
            return layers.Rescaling(scale, offset, name=name)(tensors[0])
    return _copied(layer, name, *args, **kwargs)


def _is_number(value: Any) -> bool:
    return not isinstance(value, str | bool) and np.ndim(value) == 0


_ADD = ("__operators__.add", "math.add")
_SUBTRACT = ("math.subtract",)
_MULTIPLY = ("math.multiply",)
_SYMMETRIC = (*_ADD, *_MULTIPLY)

# symbol of an operation -> number of its tensors, the layer that it is
_OF_TENSORS: dict[str, tuple[int, Call]] = {
    **dict.fromkeys(_ADD, (2, layers.Add)),
    **dict.fromkeys(_MULTIPLY, (2, layers.Multiply)),
    "nn.relu": (1, layers.ReLU),
    "nn.relu6": (1, functools.partial(layers.ReLU, 6.0)),
}

# symbol of an operation with a number c -> scale and offset of x
_OF_NUMBERS: dict[str, Callable[[float], tuple[float, float]]] = {
    **dict.fromkeys(_ADD, lambda c: (1.0, c)),
    **dict.fromkeys(_SUBTRACT, lambda c: (1.0, -c)),
    **dict.fromkeys(_MULTIPLY, lambda c: (c, 0.0)),
    "math.truediv": lambda c: (1.0 / c, 0.0),
}

_EXPANSIONS: dict[str, Call] = {
    "Activation": _activation,
    "AttentionBias": _attention_bias,
    "EinsumDense": _einsum_dense,
    "PositionEmbedding": _position_embedding,
    "SeparableConv2D": _separable_conv,
    "TFOpLambda": _operator,
}
