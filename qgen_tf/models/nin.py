"""Network in Network (Lin et al. 2013, arXiv 1312.4400).

The all-convolutional form with strides and BatchNorm that studies of
generalization measures use (Jiang et al. 2020, arXiv 1912.02178).
"""

from __future__ import annotations

from qgen_tf.compat import keras
from qgen_tf.models import blocks
from qgen_tf.models.blocks import classifier, conv_bn

layers = keras.layers


def _conv_bn_relu(x, filters: int, kernel_size: int, strides: int, name: str):
    x = conv_bn(
        x,
        filters,
        kernel_size,
        strides,
        kernel_initializer="glorot_uniform",
        name=name,
    )
    return layers.ReLU(name=f"{name}_relu")(x)


@blocks.builder
def nin(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: int = 64,
    depth: int = 3,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a Network in Network that returns logits.

    Each of the `depth` blocks halves the image with a strided 3x3 convolution
    and mixes channels with two 1x1 convolutions. A global average and a linear
    classifier follow.

    Args:
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.
      width: channels of every convolution.
      depth: number of blocks, at least 1.
      dropout: share of features dropped after each block, in [0, 1).

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].
    """
    inputs = x = layers.Input(input_shape, name="image")
    for index in range(depth):
        block = f"block{index}"
        x = _conv_bn_relu(x, width, 3, 2, f"{block}_spatial")
        x = _conv_bn_relu(x, width, 1, 1, f"{block}_mix0")
        x = _conv_bn_relu(x, width, 1, 1, f"{block}_mix1")
        x = blocks.dropout(x, dropout, name=f"{block}_dropout")
    return classifier(inputs, x, num_classes, "nin")
