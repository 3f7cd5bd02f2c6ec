"""Names and orders of the tensors of published vision transformers.

They are those of DeiT, of Swin's authors and of timm, which differ from one
another in Swin's names only.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.layers import AttentionBias, PositionEmbedding

layers = keras.layers

# from names of layers here to prefixes of names there, applied in order
_PREFIXES = (
    (r"^stage(\d+)_", r"layers.\1."),
    (r"^(.*\.)?block(\d+)_", r"\1blocks.\2."),
    (r"attention_norm$", "norm1"),
    (r"mlp_norm$", "norm2"),
    (r"attention_(query|key|value)$", "attn.qkv"),
    (r"attention_projection$", "attn.proj"),
    (r"attention_bias$", "attn"),
    (r"mlp_expand$", "mlp.fc1"),
    (r"mlp_contract$", "mlp.fc2"),
    (r"merge_", "downsample."),
    (r"^patches_norm$", "patch_embed.norm"),
    (r"^patches$", "patch_embed.proj"),
    (r"^logits$", "head"),
)
# what the authors' files hold besides weights
BUFFERS = ("relative_position_index", "attn_mask")


def _same(tensor: np.ndarray) -> np.ndarray:
    return tensor


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the value of a variable comes from.

    Attributes:
      variable: of the model.
      name: of the tensor in the file.
      shape: of that tensor; None for an axis of any length.
      convert: from that tensor to the value of the variable.
    """

    variable: tf.Variable
    name: str
    shape: tuple[int | None, ...]
    convert: Callable[[np.ndarray], np.ndarray] = _same

    def fits(self, tensor: np.ndarray) -> bool:
        """Whether the tensor has the shape."""
        return len(self.shape) == tensor.ndim and all(
            wanted in (None, found)
            for wanted, found in zip(self.shape, tensor.shape, strict=True)
        )


def one_naming(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the tensors one of the names that they are published under."""
    # Swin's authors merge at the end of a stage, timm at the start of the next
    late = int("layers.0.downsample.reduction.weight" in tensors)

    def rename(name: str) -> str:
        name = re.sub(r"^head\.fc\.", "head.", name)
        return re.sub(
            r"^layers\.(\d+)\.downsample",
            lambda match: f"layers.{int(match[1]) + late}.downsample",
            name,
        )

    return {rename(name): tensor for name, tensor in tensors.items()}


def sources(model: keras.Model) -> list[Source]:
    """Returns the source of each variable of a ViT or Swin.

    Raises:
      ModelError: the model has a layer that those have not.
    """
    return [
        source
        for layer in model.layers
        for source in _layer_sources(model, layer)
    ]


def _layer_sources(
    model: keras.Model, layer: keras.layers.Layer
) -> Iterator[Source]:
    """Yields the source of each variable of a layer.

    Raises:
      ModelError: ViTs and Swins have no such layer.
    """
    if not layer.weights:
        return
    prefix = layer.name
    for pattern, replacement in _PREFIXES:
        prefix = re.sub(pattern, replacement, prefix)
    kind = type(layer)
    if kind is PositionEmbedding:
        yield from _position_sources(model, layer)
    elif kind is AttentionBias:
        yield Source(
            layer.relative_position_bias,
            f"{prefix}.relative_position_bias_table",
            tuple(layer.relative_position_bias.shape),
        )
    elif kind is layers.Conv2D:
        rows, columns, inputs, outputs = layer.kernel.shape
        yield Source(
            layer.kernel,
            f"{prefix}.weight",
            (outputs, inputs, rows, columns),
            lambda tensor: tensor.transpose(2, 3, 1, 0),
        )
        yield Source(layer.bias, f"{prefix}.bias", (outputs,))
    elif kind is layers.LayerNormalization:
        convert = _by_rows if "downsample" in prefix else _same
        shape = tuple(layer.gamma.shape)
        yield Source(layer.gamma, f"{prefix}.weight", shape, convert)
        yield Source(layer.beta, f"{prefix}.bias", shape, convert)
    elif kind is layers.Dense:
        yield from _dense_sources(model, layer, prefix)
    else:
        raise errors.ModelError(
            f"{model.name} is no vision transformer, for it has the "
            f"{kind.__name__} {layer.name!r}: load a .weights.h5 file."
        )


def _position_sources(
    model: keras.Model, layer: PositionEmbedding
) -> Iterator[Source]:
    channels = layer.position_embedding.shape[-1]
    yield Source(
        layer.position_embedding,
        "pos_embed",
        (1, None, channels),
        functools.partial(
            _resized,
            grid=tuple(model.get_layer("patches").output.shape[1:3]),
            num_extra=int(layer.has_class_token),
        ),
    )
    if layer.class_token is not None:
        yield Source(
            layer.class_token,
            "cls_token",
            (1, 1, channels),
            lambda tensor: tensor[0, 0],
        )


def _dense_sources(
    model: keras.Model, layer: keras.layers.Dense, prefix: str
) -> Iterator[Source]:
    """Yields the sources of a dense layer, maybe parts of the published ones.

    Published kernels are [outputs, inputs].
    """
    inputs, outputs = layer.kernel.shape
    of_outputs, of_inputs = _same, _same
    if prefix.endswith("qkv"):
        part = ("query", "key", "value").index(layer.name.rsplit("_", 1)[-1])
        head = model.get_layer(f"{layer.name}_split").target_shape[-1]
        factor = head**-0.5 if part == 0 else 1.0
        outputs = 3 * outputs
        of_outputs = functools.partial(_part_of_qkv, part=part, factor=factor)
    elif "downsample" in prefix:
        of_inputs = _by_rows
    yield Source(
        layer.kernel,
        f"{prefix}.weight",
        (outputs, inputs),
        lambda tensor: of_inputs(of_outputs(tensor).T),
    )
    if layer.use_bias:
        yield Source(layer.bias, f"{prefix}.bias", (outputs,), of_outputs)


def _part_of_qkv(tensor: np.ndarray, part: int, factor: float) -> np.ndarray:
    return np.split(tensor, 3)[part] * np.float32(factor)


def _by_rows(tensor: np.ndarray) -> np.ndarray:
    """Reorders the channels of 2 x 2 pixels from column by column, axis 0."""
    shape = tensor.shape
    return tensor.reshape(2, 2, -1, *shape[1:]).swapaxes(0, 1).reshape(shape)


def _resized(
    tensor: np.ndarray, grid: tuple[int, int], num_extra: int
) -> np.ndarray:
    """Interpolates position embeddings of a square grid of tokens to another.

    Args:
      tensor: [1, num_extra + rows * columns, channels].
      grid: rows and columns that are wanted.
      num_extra: tokens in front of those of the image.

    Raises:
      ValueError: the tokens are those of no square.
    """
    extra, tokens = np.split(tensor[0], [num_extra])
    side = math.isqrt(len(tokens))
    if (side, side) == grid and len(tokens) == side**2:
        return tensor[0]
    image = tokens.reshape(1, side, side, tensor.shape[-1])
    image = tf.image.resize(image, grid, "bicubic", antialias=True).numpy()
    return np.concatenate([extra, image.reshape(-1, tensor.shape[-1])])
