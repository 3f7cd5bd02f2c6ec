"""Vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929).

DeiT (Touvron et al. 2020, arXiv 2012.12877) without a distillation token is
the same network: the names tell whose sizes are the defaults.
"""

from __future__ import annotations

from qgen_tf.compat import keras
from qgen_tf.layers import PositionEmbedding
from qgen_tf.models import blocks, transformer

layers = keras.layers

_EPSILON = 1e-6  # of every LayerNormalization


def _vit(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int,
    width: int,
    depth: int,
    num_heads: int,
    class_token: bool,
    dropout: float,
    drop_path: float,
) -> keras.Model:
    """Builds any network of the family.

    Args:
      name: of the model.
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      patch_size: pixels a side of a patch, which becomes a token.
      width: channels of a token.
      depth: number of blocks.
      num_heads: heads of each attention, a divisor of `width`.
      class_token: whether the logits read a token of their own, or else the
        average of all.
      dropout: rate behind the position embedding, each attention and each MLP.
      drop_path: rate of stochastic depth in the last block; it rises linearly
        from 0 in the first.

    Raises:
      ConfigError: the image is not made of whole patches, or the width of
        whole heads.
    """
    transformer.require_heads(width, num_heads, model=name)
    inputs = layers.Input(input_shape, name="image")
    x = transformer.patches(inputs, patch_size, width, model=name)
    tokens = x.shape[1] * x.shape[2]
    x = layers.Reshape((tokens, width), name="tokens")(x)
    x = PositionEmbedding(class_token, name="position")(x)
    x = blocks.dropout(x, dropout, name="position_dropout")
    for block in range(depth):
        x = transformer.block(
            x,
            lambda y, name: transformer.attention(y, num_heads, name=name),
            epsilon=_EPSILON,
            dropout=dropout,
            drop_path=drop_path * block / max(depth - 1, 1),
            name=f"block{block}",
        )
    if class_token:  # the others are not normalized in vain
        x = layers.Cropping1D((0, tokens), name="class_token")(x)
        x = layers.Flatten(name="features")(x)
    x = layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)
    if not class_token:
        x = layers.GlobalAveragePooling1D(name="pool")(x)
    logits = transformer.dense(x, num_classes, name="logits")
    return keras.Model(inputs, logits, name=name)


@blocks.builder
def deit_tiny(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int = 16,
    width: int = 192,
    depth: int = 12,
    num_heads: int = 3,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> keras.Model:
    """Builds a DeiT-Tiny (table 1 of DeiT) that returns logits.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      patch_size: pixels a side of a patch, which becomes a token.
      width: channels of a token.
      depth: number of blocks.
      num_heads: heads of each attention, a divisor of `width`.
      dropout: rate behind the position embedding, each attention and each MLP.
      drop_path: rate of stochastic depth in the last block; it rises linearly
        from 0 in the first.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes], read from a class token.

    Raises:
      ConfigError: the image is not made of whole patches, or the width of
        whole heads.
    """
    return _vit(
        "deit_tiny",
        input_shape,
        num_classes,
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=num_heads,
        class_token=True,
        dropout=dropout,
        drop_path=drop_path,
    )


@blocks.builder
def deit_small(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int = 16,
    width: int = 384,
    depth: int = 12,
    num_heads: int = 6,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> keras.Model:
    """Builds a DeiT-Small (table 1 of DeiT): see `deit_tiny`."""
    return _vit(
        "deit_small",
        input_shape,
        num_classes,
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=num_heads,
        class_token=True,
        dropout=dropout,
        drop_path=drop_path,
    )


@blocks.builder
def vit_small(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int = 16,
    width: int = 384,
    depth: int = 12,
    num_heads: int = 6,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> keras.Model:
    """Builds a ViT-Small (AugReg, arXiv 2106.10270): see `deit_tiny`."""
    return _vit(
        "vit_small",
        input_shape,
        num_classes,
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=num_heads,
        class_token=True,
        dropout=dropout,
        drop_path=drop_path,
    )


@blocks.builder
def cifar_vit(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int = 4,
    width: int = 96,
    depth: int = 6,
    num_heads: int = 3,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> keras.Model:
    """Builds a ViT for images of 32 pixels: see `deit_tiny`.

    There is no class token: the logits read the average of all tokens.
    """
    return _vit(
        "cifar_vit",
        input_shape,
        num_classes,
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=num_heads,
        class_token=False,
        dropout=dropout,
        drop_path=drop_path,
    )
