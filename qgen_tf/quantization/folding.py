"""BatchNorm as a part of the linear layer that it follows."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from qgen_tf.compat import keras
from qgen_tf.quantization import affine, graph
from qgen_tf.quantization.quantize import unwrapped
from qgen_tf.quantization.quantize_registry import Role, is_fused, role

Layer: TypeAlias = keras.layers.Layer


def foldable_norms(model: keras.Model) -> dict[str, Layer]:
    """Maps names of linear layers to the BatchNorm that alone reads them."""
    outputs = {tensor.node.layer.name for tensor in model.outputs}
    readers = graph.consumers(model)
    norms = {}
    for layer in model.layers:
        if len(readers[layer.name]) != 1 or layer.name in outputs:
            continue
        inner = unwrapped(layer)
        reader = unwrapped(readers[layer.name][0])
        if (
            role(inner) is Role.LINEAR
            and role(reader) is Role.AFFINE
            and is_fused(inner, reader)
        ):
            norms[layer.name] = reader
    return norms


def folded(
    layer: Layer | None, norm: Layer | None, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a linear layer and BatchNorm behind it multiply and add.

    Args:
      layer: the linear layer, if there is one.
      norm: the BatchNorm that alone reads it, or one by itself, if any.
      channels: of the outputs.

    Returns:
      The factor of the weight and the bias, both float32 [channels].
    """
    factor = np.ones(channels, np.float32)
    bias = np.zeros(channels, np.float32)
    if layer is not None and layer.use_bias:
        bias = layer.bias.numpy()
    if norm is not None:
        factor, offset = affine.coefficients(norm, channels)
        bias = bias * factor + offset
    return factor, bias
