"""What transformers are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.layers import MatMul
from qgen_tf.models import blocks

layers = keras.layers


def dense(
    x: Any, units: int, *, name: str, use_bias: bool = True, scale: float = 1.0
) -> Any:
    """Applies a dense layer to tokens [batch, ..., channels].

    Args:
      x: the tokens.
      units: channels of the output.
      name: of the layer.
      use_bias: whether it has a bias.
      scale: factor on the initial kernel.
    """
    initializer = keras.initializers.TruncatedNormal(stddev=0.02 * scale)
    return layers.Dense(
        units, use_bias=use_bias, kernel_initializer=initializer, name=name
    )(x)


def _split_heads(x: Any, num_heads: int, *, name: str) -> Any:
    """Turns [batch, (windows,) tokens, channels] into a matrix a head.

    Returns:
      [batch, (windows *) heads, tokens, channels / heads].
    """
    *windows, tokens, channels = x.shape[1:]
    shape = (*windows, tokens, num_heads, channels // num_heads)
    x = layers.Reshape(shape, name=f"{name}_split")(x)
    if not windows:
        return layers.Permute((2, 1, 3), name=f"{name}_heads")(x)
    x = layers.Permute((1, 3, 2, 4), name=f"{name}_permute")(x)
    shape = (windows[0] * num_heads, tokens, channels // num_heads)
    return layers.Reshape(shape, name=f"{name}_heads")(x)


def _join_heads(x: Any, shape: tuple[int, ...], *, name: str) -> Any:
    """Undoes `_split_heads` of tokens of a shape, the batch axis aside."""
    *windows, tokens, _ = shape
    if not windows:
        x = layers.Permute((2, 1, 3), name=f"{name}_permute")(x)
        return layers.Reshape(shape, name=f"{name}_join")(x)
    split = (windows[0], x.shape[1] // windows[0], tokens, x.shape[-1])
    x = layers.Reshape(split, name=f"{name}_split")(x)
    x = layers.Permute((1, 3, 2, 4), name=f"{name}_permute")(x)
    return layers.Reshape(shape, name=f"{name}_join")(x)


def attention(
    x: Any, num_heads: int, *, name: str, bias: keras.layers.Layer | None = None
) -> Any:
    """Applies multi-head self-attention (Vaswani et al. 2017, section 3.2).

    The factor (channels / heads)**-0.5 on the scores is part of the kernel and
    the bias of the query, also when they are drawn.

    Args:
      x: tokens [batch, tokens, channels], or [batch, windows, tokens, channels]
        that see those of their window only.
      num_heads: number of heads, a divisor of the channels.
      name: prefix of the layers.
      bias: layer that is applied to the scores.
    """
    shape = tuple(x.shape[1:])
    channels = shape[-1]
    scale = (channels // num_heads) ** -0.5
    query, key, value = (
        _split_heads(
            dense(x, channels, name=f"{name}_{kind}", scale=factor),
            num_heads,
            name=f"{name}_{kind}",
        )
        for kind, factor in (("query", scale), ("key", 1.0), ("value", 1.0))
    )
    scores = MatMul(transpose_b=True, name=f"{name}_scores")([query, key])
    if bias is not None:
        scores = bias(scores)
    weights = layers.Softmax(name=f"{name}_softmax")(scores)
    x = MatMul(name=f"{name}_context")([weights, value])
    x = _join_heads(x, shape, name=f"{name}_context")
    return dense(x, channels, name=f"{name}_projection")


def _mlp(x: Any, name: str) -> Any:
    """Applies two dense layers, the inner one four times as wide."""
    channels = x.shape[-1]
    x = dense(x, 4 * channels, name=f"{name}_expand")
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    return dense(x, channels, name=f"{name}_contract")


def _residual(
    x: Any,
    branch: Callable[[Any, str], Any],
    *,
    epsilon: float,
    dropout: float,
    drop_path: float,
    name: str,
) -> Any:
    """Adds to `x` what a branch makes of its normalized values.

    Args:
      x: tokens [batch, ..., channels].
      branch: (tokens, prefix of its layers) to tokens of the same shape.
      epsilon: of the LayerNormalization.
      dropout: rate at which values of the branch are zeroed in training.
      drop_path: rate at which the branch of a whole example is (stochastic
        depth, arXiv 1603.09382).
      name: prefix of the layers.
    """
    y = layers.LayerNormalization(epsilon=epsilon, name=f"{name}_norm")(x)
    y = branch(y, name)
    y = blocks.dropout(y, dropout, name=f"{name}_dropout")
    y = blocks.dropout(
        y,
        drop_path,
        noise_shape=(None,) + (1,) * (len(x.shape) - 1),
        name=f"{name}_drop_path",
    )
    return layers.Add(name=f"{name}_add")([x, y])


def block(
    x: Any,
    mix: Callable[[Any, str], Any],
    *,
    epsilon: float,
    dropout: float,
    drop_path: float,
    name: str,
) -> Any:
    """Applies a pre-norm block: attention, then an MLP, on two shortcuts.

    Args:
      x: tokens [batch, ..., channels].
      mix: (normalized tokens, prefix of the layers) to what attention makes of
        them; it keeps their shape.
      epsilon: of the LayerNormalizations.
      dropout: rate behind the attention and the MLP.
      drop_path: rate of stochastic depth.
      name: prefix of the layers.
    """
    for kind, branch in (("attention", mix), ("mlp", _mlp)):
        x = _residual(
            x,
            branch,
            epsilon=epsilon,
            dropout=dropout,
            drop_path=drop_path,
            name=f"{name}_{kind}",
        )
    return x


def patches(x: Any, patch_size: int, width: int, *, model: str) -> Any:
    """Embeds each patch of an image in `width` channels.

    Returns:
      [batch, height / patch_size, width / patch_size, width].

    Raises:
      ConfigError: the image is not made of whole patches.
    """
    height, columns = x.shape[1:3]
    if patch_size < 1 or height % patch_size or columns % patch_size:
        raise errors.ConfigError(
            f"{model} cuts images into patches of {patch_size} pixels, and "
            f"{height} x {columns} is no multiple: change dataset.image_size "
            "or model.patch_size."
        )
    return layers.Conv2D(
        width,
        patch_size,
        patch_size,
        kernel_initializer="lecun_normal",
        name="patches",
    )(x)


def require_heads(width: int, num_heads: int, *, model: str) -> None:
    """Raises unless `width` channels can be shared out among the heads.

    Raises:
      ConfigError: names the model and both numbers.
    """
    if num_heads < 1 or width % num_heads:
        raise errors.ConfigError(
            f"{model} shares {width} channels among {num_heads} heads: make "
            "the width a multiple of the heads."
        )
