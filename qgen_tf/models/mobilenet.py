"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381)."""

from __future__ import annotations

import functools
import math
from typing import Any

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import blocks

layers = keras.layers

# table 2 of the paper: expansion, channels and number of blocks of each stage
_STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)
# of the stem's convolution, and of the first block of each stage
_STRIDES = {
    "cifar": (1, (1, 1, 2, 2, 1, 2, 1)),
    "imagenet": (2, (1, 2, 2, 2, 1, 2, 1)),
}

_conv_bn = functools.partial(blocks.conv_bn, kernel_initializer="he_normal")


def _relu6(x, name: str):
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _make_divisible(channels: float, divisor: int = 8) -> int:
    """Rounds to a multiple of `divisor` that is at least 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def _inverted_residual(
    inputs: Any, expansion: int, filters: int, strides: int, name: str
) -> Any:
    x = inputs
    channels = inputs.shape[-1]
    if expansion != 1:
        x = _conv_bn(x, expansion * channels, 1, 1, name=f"{name}_expand")
        x = _relu6(x, f"{name}_expand")
    x = blocks.depthwise_bn(x, 3, strides, name=f"{name}_depthwise")
    x = _relu6(x, f"{name}_depthwise")
    x = _conv_bn(x, filters, 1, 1, name=f"{name}_project")
    if strides == 1 and filters == channels:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


@blocks.builder
def mobilenet_v2(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    stem: str = "cifar",
    alpha: float = 1.0,
) -> keras.Model:
    """Builds a MobileNetV2 that returns logits.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      stem: "cifar" (strides 1 in the stem and the second stage, 8 in all) or
        "imagenet" (the paper's strides, 32 in all).
      alpha: factor, above 0, on the channels of every convolution, which are
        then rounded to multiples of 8. The last convolution keeps at least
        1280 channels.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ConfigError: `stem` is unknown, or `alpha` is not above 0 and finite.
    """
    blocks.require_stem(stem, model="mobilenet_v2")
    if not 0 < alpha < math.inf:
        raise errors.ConfigError(
            f"mobilenet_v2 needs a finite alpha above 0, not {alpha}."
        )
    stem_strides, stage_strides = _STRIDES[stem]
    inputs = layers.Input(input_shape, name="image")
    x = _conv_bn(
        inputs, _make_divisible(32 * alpha), 3, stem_strides, name="stem"
    )
    x = _relu6(x, "stem")
    for stage, (expansion, channels, count) in enumerate(_STAGES):
        filters = _make_divisible(channels * alpha)
        for block in range(count):
            strides = stage_strides[stage] if block == 0 else 1
            name = f"stage{stage}_block{block}"
            x = _inverted_residual(x, expansion, filters, strides, name)
    x = _conv_bn(x, _make_divisible(1280 * max(1.0, alpha)), 1, 1, name="last")
    x = _relu6(x, "last")
    return blocks.classifier(inputs, x, num_classes, "mobilenet_v2")
