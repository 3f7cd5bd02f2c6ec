"""What several models are made of."""

from __future__ import annotations

from typing import Any

from qgen_tf.compat import keras

layers = keras.layers


def conv_bn(
    x: Any,
    filters: int,
    kernel_size: int,
    strides: int,
    *,
    kernel_initializer: str,
    name: str,
) -> Any:
    """Applies a convolution without bias, and BatchNorm behind it."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=kernel_initializer,
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
