"""What the quantizer knows of each Keras layer."""

from __future__ import annotations

import dataclasses
import enum

from qgen_tf.compat import keras

layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Weight:
    """The weight of a layer that is quantized.

    Attributes:
      attribute: its name in the layer.
      channel_axes: the axes that, taken together, count the output channels.
      per_axis: whether the integer runtime takes a step size a channel.
    """

    attribute: str
    channel_axes: tuple[int, ...]
    per_axis: bool


class Role(enum.Enum):
    """How a layer appears in the integer network."""

    LINEAR = "computes with weights"
    NORM = "folded into the layer before it"
    RELU = "fused into the layer before it"
    COMPUTE = "computes without weights, on a grid of its own"
    SHAPE = "moves values about, on the grid of its input"
    UNKNOWN = "left alone"


WEIGHTS: dict[type, Weight] = {
    layers.Conv2D: Weight("kernel", (-1,), per_axis=True),
    layers.DepthwiseConv2D: Weight("depthwise_kernel", (-2, -1), per_axis=True),
    layers.Dense: Weight("kernel", (-1,), per_axis=False),
}

_ROLES: dict[type, Role] = {
    **dict.fromkeys(WEIGHTS, Role.LINEAR),
    layers.BatchNormalization: Role.NORM,
    layers.Add: Role.COMPUTE,
    layers.GlobalAveragePooling2D: Role.COMPUTE,
    layers.AveragePooling2D: Role.COMPUTE,
    layers.MaxPooling2D: Role.SHAPE,
    layers.GlobalMaxPooling2D: Role.SHAPE,
    layers.Flatten: Role.SHAPE,
    layers.Reshape: Role.SHAPE,
    layers.Dropout: Role.SHAPE,
    layers.ZeroPadding2D: Role.SHAPE,
}


def role(layer: keras.layers.Layer) -> Role:
    """Returns the role of a float layer; a subclass may do anything."""
    if type(layer) is layers.ReLU:
        return Role.RELU if _is_fusable_relu(layer) else Role.UNKNOWN
    if type(layer) is layers.Activation:
        if has_activation(layer, "relu"):
            return Role.RELU
        if has_activation(layer, "linear"):
            return Role.COMPUTE
    return _ROLES.get(type(layer), Role.UNKNOWN)


def has_activation(layer: keras.layers.Layer, name: str) -> bool:
    """Whether the layer applies the Keras activation `name` to its output."""
    return layer.activation is keras.activations.get(name)


def _is_fusable_relu(layer: keras.layers.ReLU) -> bool:
    """Whether the runtime has it: max(x, 0) or min(max(x, 0), 6)."""
    return (
        layer.max_value in (None, 6)
        and not layer.negative_slope
        and not layer.threshold
    )


def is_non_negative(layer: keras.layers.Layer, inputs: list[bool]) -> bool:
    """Whether the layer's output has no value below zero.

    Args:
      layer: a float layer.
      inputs: the same of each of its inputs.
    """
    kind = role(layer)
    if kind is Role.LINEAR:
        return has_activation(layer, "relu")
    return kind is Role.RELU or (
        kind in (Role.COMPUTE, Role.SHAPE) and bool(inputs) and all(inputs)
    )
