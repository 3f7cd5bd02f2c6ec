"""Residual networks (He et al. 2015, arXiv 1512.03385).

All have projection shortcuts where the shape changes (option B of the paper).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import blocks

layers = keras.layers

_conv_bn = functools.partial(blocks.conv_bn, kernel_initializer="he_normal")


def _conv_bn_relu(x, filters: int, kernel_size: int, strides: int, name: str):
    x = _conv_bn(x, filters, kernel_size, strides, name=name)
    return layers.ReLU(name=f"{name}_relu")(x)


def _basic(x, filters: int, strides: int, name: str):
    x = _conv_bn_relu(x, filters, 3, strides, name=f"{name}_1")
    return _conv_bn(x, filters, 3, 1, name=f"{name}_2")


def _bottleneck(x, filters: int, strides: int, name: str):
    x = _conv_bn_relu(x, filters, 1, 1, name=f"{name}_1")
    x = _conv_bn_relu(x, filters, 3, strides, name=f"{name}_2")
    return _conv_bn(x, 4 * filters, 1, 1, name=f"{name}_3")


def _block(
    branch: Callable[..., Any], x: Any, filters: int, strides: int, name: str
) -> Any:
    """Adds `branch` to its input, projected where they differ in shape."""
    shortcut = x
    x = branch(x, filters, strides, name)
    channels = x.shape[-1]
    if shortcut.shape[-1] != channels:  # as wherever the image is halved
        shortcut = _conv_bn(shortcut, channels, 1, strides, name=f"{name}_0")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _stem(x, stem: str, width: int):
    if stem == "cifar":
        return _conv_bn_relu(x, width, 3, 1, name="stem")
    x = _conv_bn_relu(x, width, 7, 2, name="stem")
    return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)


def _resnet(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    branch: Callable[..., Any],
    counts: Sequence[int],
    stem: str,
    width: int,
) -> keras.Model:
    """Builds any network of the family.

    Args:
      name: of the model.
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      branch: `_basic` or `_bottleneck`.
      counts: number of blocks of each stage.
      stem: "cifar" or "imagenet".
      width: the first stage's `filters`; each later stage doubles them and
        halves the image.
    """
    blocks.require_stem(stem, model=name)
    inputs = layers.Input(input_shape, name="image")
    x = _stem(inputs, stem, width)
    for stage, count in enumerate(counts):
        for block in range(count):
            strides = 2 if stage > 0 and block == 0 else 1
            block_name = f"stage{stage}_block{block}"
            x = _block(branch, x, width * 2**stage, strides, block_name)
    return blocks.classifier(inputs, x, num_classes, name)


@blocks.builder
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
    return _resnet(
        "resnet18",
        input_shape,
        num_classes,
        branch=_basic,
        counts=(2, 2, 2, 2),
        stem=stem,
        width=width,
    )


@blocks.builder
def resnet20(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    depth: int = 20,
    width: int = 16,
) -> keras.Model:
    """Builds the ResNet for CIFAR (section 4.2) that returns logits.

    A 3x3 convolution and three stages of (depth - 2) / 6 basic blocks.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      depth: number of layers with weights, shortcuts aside: 20, 32, 44, 56 or
        any other 6n + 2 with n at least 1. The model is named after it.
      width: channels of the first stage; each of the two later stages doubles
        them.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ConfigError: `depth` is not 6n + 2.
    """
    if depth < 8 or depth % 6 != 2:
        raise errors.ConfigError(
            f"resnet20 needs a depth of 6n + 2 (8, 14, 20, 26, 32...), not "
            f"{depth}."
        )
    return _resnet(
        f"resnet{depth}",
        input_shape,
        num_classes,
        branch=_basic,
        counts=((depth - 2) // 6,) * 3,
        stem="cifar",
        width=width,
    )


@blocks.builder
def resnet50(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    stem: str = "cifar",
    width: int = 64,
) -> keras.Model:
    """Builds a ResNet-50 (v1.5: the 3x3 strides) that returns logits.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      stem: "cifar" (3x3 convolution, full resolution) or "imagenet" (7x7
        convolution of stride 2 and max pooling).
      width: channels inside the bottlenecks of the first stage, which returns
        four times as many; each of the three later stages doubles them.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ConfigError: `stem` is unknown.
    """
    return _resnet(
        "resnet50",
        input_shape,
        num_classes,
        branch=_bottleneck,
        counts=(3, 4, 6, 3),
        stem=stem,
        width=width,
    )
