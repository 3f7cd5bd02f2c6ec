"""Swin transformers (Liu et al. 2021, arXiv 2103.14030)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.layers import AttentionBias, CyclicShift
from qgen_tf.models import blocks, transformer

layers = keras.layers

_EPSILON = 1e-5  # of every LayerNormalization


def _windows(x: Any, size: int, *, name: str) -> Any:
    """Cuts an image into windows.

    Args:
      x: [batch, height, width, channels].
      size: pixels a side of a window.
      name: prefix of the layers.

    Returns:
      [batch, height / size * width / size, size**2, channels], windows and
      pixels row by row.
    """
    height, width, channels = x.shape[1:]
    rows, columns = height // size, width // size
    # pixels of a row of a window stay together: five axes do
    cut = (rows, size, columns, size * channels)
    x = layers.Reshape(cut, name=f"{name}_cut")(x)
    x = layers.Permute((1, 3, 2, 4), name=f"{name}_permute")(x)
    windows = (rows * columns, size**2, channels)
    return layers.Reshape(windows, name=f"{name}_windows")(x)


def _image(x: Any, size: int, height: int, width: int, *, name: str) -> Any:
    """Undoes `_windows` of an image of `height` x `width` pixels."""
    channels = x.shape[-1]
    cut = (height // size, width // size, size, size * channels)
    x = layers.Reshape(cut, name=f"{name}_cut")(x)
    x = layers.Permute((1, 3, 2, 4), name=f"{name}_permute")(x)
    image = (height, width, channels)
    return layers.Reshape(image, name=f"{name}_image")(x)


def _regions(height: int, width: int, size: int, shift: int) -> np.ndarray:
    """Returns which part of the image each pixel of a shifted window is of.

    A cyclic shift brings rows (columns) of the upper (left) side next to those
    of the lower (right) one: the last `shift` are of another part than those
    before, with which they share windows (figure 4 of the paper).

    Returns:
      Integers 0 to 3, [windows, size**2].
    """
    lower = np.arange(height) >= height - shift
    right = np.arange(width) >= width - shift
    parts = 2 * lower[:, None] + right
    parts = parts.reshape(height // size, size, width // size, size)
    return parts.swapaxes(1, 2).reshape(-1, size**2)


def _window_attention(
    x: Any, name: str, *, num_heads: int, size: int, shift: int
) -> Any:
    """Applies attention within windows that are shifted by `shift` pixels."""
    height, width = x.shape[1:3]
    mask = None
    if shift:
        x = CyclicShift(shift, name=f"{name}_shift")(x)
        mask = _regions(height, width, size, shift)
    bias = AttentionBias(size, num_heads, mask, name=f"{name}_bias")
    x = _windows(x, size, name=name)
    x = transformer.attention(x, num_heads, name=name, bias=bias)
    x = _image(x, size, height, width, name=f"{name}_back")
    if shift:
        x = CyclicShift(-shift, name=f"{name}_back_shift")(x)
    return x


def _merge(x: Any, *, name: str) -> Any:
    """Makes one token of each 2 x 2, with twice the channels.

    The four are concatenated row by row, where the authors go column by column.
    """
    height, width, channels = x.shape[1:]
    x = _windows(x, 2, name=name)
    shape = (height // 2, width // 2, 4 * channels)
    x = layers.Reshape(shape, name=f"{name}_concat")(x)
    x = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm")(x)
    return transformer.dense(
        x, 2 * channels, use_bias=False, name=f"{name}_reduction"
    )


def _require_windows(x: Any, size: int, *, model: str, name: str) -> None:
    """Raises unless an image [batch, height, width, ...] is whole windows.

    Raises:
      ConfigError: names the model, the image by `name` and the sizes.
    """
    height, width = x.shape[1:3]
    if size < 1 or height % size or width % size:
        raise errors.ConfigError(
            f"{model} cuts {name} of {height} x {width} tokens into windows of "
            f"{size}, and that is no multiple: change dataset.image_size, "
            "model.patch_size or model.window_size."
        )


def _swin(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int,
    width: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_size: int,
    dropout: float,
    drop_path: float,
) -> keras.Model:
    """Builds any network of the family: `swin_tiny` says of what."""
    if len(depths) != len(num_heads):
        raise errors.ConfigError(
            f"{name} has {len(depths)} stages by model.depths and "
            f"{len(num_heads)} by model.num_heads: give one number a stage in "
            "both."
        )
    inputs = layers.Input(input_shape, name="image")
    x = transformer.patches(inputs, patch_size, width, model=name)
    x = layers.LayerNormalization(epsilon=_EPSILON, name="patches_norm")(x)
    x = blocks.dropout(x, dropout, name="patches_dropout")
    rates = iter(np.linspace(0.0, drop_path, sum(depths)).tolist())
    for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        transformer.require_heads(width * 2**stage, heads, model=name)
        if stage > 0:
            before = f"the input of stage {stage}"
            _require_windows(x, 2, model=name, name=before)
            x = _merge(x, name=f"stage{stage}_merge")
        side = min(x.shape[1:3])
        size = min(window_size, side)
        _require_windows(x, size, model=name, name=f"stage {stage}")
        for block in range(depth):
            x = transformer.block(
                x,
                functools.partial(
                    _window_attention,
                    num_heads=heads,
                    size=size,
                    # a window as long as a side has nowhere to go
                    shift=size // 2 if block % 2 and size < side else 0,
                ),
                epsilon=_EPSILON,
                dropout=dropout,
                drop_path=next(rates),
                name=f"stage{stage}_block{block}",
            )
    x = layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = transformer.dense(x, num_classes, name="logits")
    return keras.Model(inputs, logits, name=name)


@blocks.builder
def swin_tiny(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int = 4,
    width: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int = 7,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> keras.Model:
    """Builds a Swin-Tiny that returns logits.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      patch_size: pixels a side of a patch, which becomes a token.
      width: channels of a token in the first stage; each later one doubles
        them and halves the image.
      depths: number of blocks of each stage; every other has shifted windows.
      num_heads: heads of the attention in each stage.
      window_size: tokens a side of a window; a stage with fewer has one.
      dropout: rate behind the patches, each attention and each MLP.
      drop_path: rate of stochastic depth in the last block; it rises linearly
        from 0 in the first.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ConfigError: the image is not made of whole patches, a stage of whole
        windows or the width of whole heads, or `depths` and `num_heads` differ
        in length.
    """
    return _swin(
        "swin_tiny",
        input_shape,
        num_classes,
        patch_size=patch_size,
        width=width,
        depths=depths,
        num_heads=num_heads,
        window_size=window_size,
        dropout=dropout,
        drop_path=drop_path,
    )


@blocks.builder
def cifar_swin(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    patch_size: int = 2,
    width: int = 48,
    depths: Sequence[int] = (2, 2, 2),
    num_heads: Sequence[int] = (2, 4, 8),
    window_size: int = 4,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> keras.Model:
    """Builds a Swin for images of 32 pixels: see `swin_tiny`."""
    return _swin(
        "cifar_swin",
        input_shape,
        num_classes,
        patch_size=patch_size,
        width=width,
        depths=depths,
        num_heads=num_heads,
        window_size=window_size,
        dropout=dropout,
        drop_path=drop_path,
    )
