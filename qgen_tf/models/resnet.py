"""Residual networks (He et al. 2015, arXiv 1512.03385)."""

from __future__ import annotations

import functools

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models.blocks import conv_bn

layers = keras.layers


_conv_bn = functools.partial(conv_bn, kernel_initializer="he_normal")


def _basic_block(x, filters: int, strides: int, name: str):
    shortcut = x
    x = _conv_bn(x, filters, 3, strides, name=f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv_bn(x, filters, 3, 1, name=f"{name}_2")
    if strides != 1 or shortcut.shape[-1] != filters:
        shortcut = _conv_bn(shortcut, filters, 1, strides, name=f"{name}_0")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _stem(x, stem: str, width: int):
    if stem == "cifar":
        x = _conv_bn(x, width, 3, 1, name="stem")
        return layers.ReLU(name="stem_relu")(x)
    if stem == "imagenet":
        x = _conv_bn(x, width, 7, 2, name="stem")
        x = layers.ReLU(name="stem_relu")(x)
        return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    raise errors.ConfigError(
        f"resnet18 has no stem {stem!r}: choose 'cifar' or 'imagenet'."
    )


def resnet18(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    stem: str = "cifar",
    width: int = 64,
) -> keras.Model:
    """Builds a ResNet-18 that returns logits.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      stem: "cifar" (3x3 convolution, full resolution) or "imagenet" (7x7
        convolution of stride 2 and max pooling).
      width: channels of the first stage; each of the three later stages
        doubles them.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ConfigError: `stem` is unknown.
    """
    inputs = layers.Input(input_shape, name="image")
    x = _stem(inputs, stem, width)
    for stage in range(4):
        for block in range(2):
            strides = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage}_block{block}"
            x = _basic_block(x, width * 2**stage, strides, name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, logits, name="resnet18")
