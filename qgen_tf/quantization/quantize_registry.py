"""What the quantizer knows of each Keras layer."""

from __future__ import annotations

import dataclasses
import enum

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.layers import (
    AttentionBias,
    CyclicShift,
    MatMul,
    PositionEmbedding,
)
from qgen_tf.quantization.aligned_norm import AlignedLayerNorm
from qgen_tf.quantization.key_mask import KeyMask

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
    AFFINE = "scales and shifts each channel"
    RELU = "clips, fused into the layer before it where that computes"
    COMPUTE = "computes without weights, on a grid of its own"
    FIXED = "computes on the grid that the runtime gives it"
    SHAPE = "moves values about, on the grid of its input"
    CONSTANT = "adds a constant, which has 8 bits"
    NORM = "normalizes in 16 bits between two grids"
    UNKNOWN = "left alone"


@dataclasses.dataclass(frozen=True)
class FixedGrid:
    """The 8-bit grid of a function of fixed range.

    Attributes:
      step_size: of the integer runtime.
      zero_point: number of levels below zero.
    """

    step_size: float
    zero_point: int


WEIGHTS: dict[type, Weight] = {
    layers.Conv2D: Weight("kernel", (-1,), per_axis=True),
    layers.Conv2DTranspose: Weight("kernel", (-2,), per_axis=True),
    layers.DepthwiseConv2D: Weight("depthwise_kernel", (-2, -1), per_axis=True),
    layers.Dense: Weight("kernel", (-1,), per_axis=False),
}

# layers that add a constant, and the name of the weight that it is made of
CONSTANTS: dict[type, str] = {
    AttentionBias: "relative_position_bias",
    PositionEmbedding: "position_embedding",
}

_ROLES: dict[type, Role] = {
    **dict.fromkeys(WEIGHTS, Role.LINEAR),
    **dict.fromkeys(CONSTANTS, Role.CONSTANT),
    layers.BatchNormalization: Role.AFFINE,
    layers.Normalization: Role.AFFINE,
    layers.Rescaling: Role.AFFINE,
    layers.Add: Role.COMPUTE,
    layers.Multiply: Role.COMPUTE,
    layers.Concatenate: Role.COMPUTE,
    layers.LeakyReLU: Role.COMPUTE,
    layers.GlobalAveragePooling1D: Role.COMPUTE,
    layers.GlobalAveragePooling2D: Role.COMPUTE,
    layers.AveragePooling2D: Role.COMPUTE,
    MatMul: Role.COMPUTE,
    KeyMask: Role.COMPUTE,
    CyclicShift: Role.SHAPE,
    layers.MaxPooling2D: Role.SHAPE,
    layers.GlobalMaxPooling2D: Role.SHAPE,
    layers.Flatten: Role.SHAPE,
    layers.Reshape: Role.SHAPE,
    layers.Permute: Role.SHAPE,
    layers.Dropout: Role.SHAPE,
    layers.SpatialDropout2D: Role.SHAPE,
    layers.ZeroPadding1D: Role.SHAPE,
    layers.ZeroPadding2D: Role.SHAPE,
    layers.Cropping1D: Role.SHAPE,
    layers.Cropping2D: Role.SHAPE,
    layers.Softmax: Role.FIXED,
    layers.LayerNormalization: Role.NORM,
    AlignedLayerNorm: Role.NORM,
}

# Activations by name, as in the layer `Activation` or in the argument
# `activation` of a layer.
_ACTIVATIONS = {
    "linear": Role.SHAPE,
    "relu": Role.RELU,
    "gelu": Role.COMPUTE,
    "sigmoid": Role.FIXED,
    "softmax": Role.FIXED,
    "tanh": Role.FIXED,
}
_ALIASES = {
    tf.nn.relu: "relu",
    tf.nn.gelu: "gelu",
    tf.nn.sigmoid: "sigmoid",
    tf.nn.softmax: "softmax",
    tf.nn.tanh: "tanh",
    tf.nn.swish: "swish",
    tf.nn.relu6: "relu6",
}
_INTERPOLATIONS = {"nearest": Role.SHAPE, "bilinear": Role.COMPUTE}
_FIXED_GRIDS = {
    "sigmoid": FixedGrid(1 / 256, 0),
    "softmax": FixedGrid(1 / 256, 0),
    "tanh": FixedGrid(1 / 128, 128),
}


# Their output has a value below zero only where an input has one.
_SIGN_KEEPING = (
    layers.Add,
    layers.Multiply,
    layers.Concatenate,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.AveragePooling2D,
    layers.UpSampling2D,
    MatMul,
)


def activation_name(layer: keras.layers.Layer) -> str | None:
    """Returns the Keras name of a layer's activation function, if it has one.

    TensorFlow's own functions are known by the names of Keras; "relu6" and
    "swish" are the other two that are told apart.
    """
    function = layer.activation
    if function in _ALIASES:
        return _ALIASES[function]
    for name in [*_ACTIVATIONS, "swish"]:
        if function is keras.activations.get(name):
            return name
    return None


def role(layer: keras.layers.Layer) -> Role:
    """Returns the role of a float layer; a subclass may do anything."""
    if type(layer) is layers.ReLU:
        return Role.RELU if _is_fusable_relu(layer) else Role.UNKNOWN
    if type(layer) is layers.Activation:
        return _ACTIVATIONS.get(activation_name(layer) or "", Role.UNKNOWN)
    if type(layer) is layers.UpSampling2D:
        return _INTERPOLATIONS.get(layer.interpolation, Role.UNKNOWN)
    if not _is_on_last_axis(layer) or getattr(layer, "invert", False):
        return Role.UNKNOWN
    return _ROLES.get(type(layer), Role.UNKNOWN)


def fixed_grid(layer: keras.layers.Layer) -> FixedGrid:
    """Returns the grid of a layer of the role FIXED."""
    if type(layer) is layers.Softmax:
        return _FIXED_GRIDS["softmax"]
    return _FIXED_GRIDS[activation_name(layer) or ""]


def is_fused(layer: keras.layers.Layer, reader: keras.layers.Layer) -> bool:
    """Whether the integer network computes `layer` and `reader` as one.

    Args:
      layer: a float layer.
      reader: the only reader of its output.
    """
    kind = role(layer)
    if kind is Role.LINEAR and activation_name(layer) != "linear":
        return False
    if type(reader) is layers.BatchNormalization:
        return kind is Role.LINEAR
    if type(reader) is KeyMask:
        return kind is Role.CONSTANT
    sums = type(layer) is layers.Add
    return role(reader) is Role.RELU and (
        kind in (Role.LINEAR, Role.AFFINE) or sums
    )


def signed(layer: keras.layers.Layer, inputs: list[bool | None]) -> bool | None:
    """Whether the layer's output has values below zero; None if data tells.

    Args:
      layer: a float layer.
      inputs: the same of each of its inputs.
    """
    kind = role(layer)
    if kind is Role.LINEAR:
        return activation_name(layer) != "relu"
    if kind is Role.RELU:
        return False
    if kind is Role.FIXED:
        return fixed_grid(layer).zero_point > 0
    if kind is Role.SHAPE or type(layer) in _SIGN_KEEPING:
        if inputs and not any(sign is None for sign in inputs):
            return any(inputs)
        return None
    return True if type(layer) is layers.BatchNormalization else None


def _is_on_last_axis(layer: keras.layers.Layer) -> bool:
    """Whether the layer has channels on the last axis, as far as it has any."""
    if getattr(layer, "data_format", None) == "channels_first":
        return False
    if type(layer) is layers.BatchNormalization:
        rank = layer.input_spec.ndim if layer.built else 0
        return set(tf.nest.flatten(layer.axis)) <= {-1, rank - 1}
    if isinstance(layer, layers.LayerNormalization):
        rank = len(layer.input_shape) if layer.built else 0
        return list(tf.nest.flatten(layer.axis)) in ([-1], [rank - 1])
    if type(layer) is layers.Normalization:
        return layer.axis in ((), (-1,), (3,))
    return not isinstance(layer, layers.Softmax) or layer.axis == -1


def _is_fusable_relu(layer: keras.layers.ReLU) -> bool:
    """Whether the runtime has it: max(x, 0) or min(max(x, 0), 6)."""
    return (
        layer.max_value in (None, 6)
        and not layer.negative_slope
        and not layer.threshold
    )
