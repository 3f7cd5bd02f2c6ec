"""One small network for each kind of layer, on 8x8 images."""

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.layers import (
    AttentionBias,
    CyclicShift,
    MatMul,
    PositionEmbedding,
)
from tests import harness

layers = keras.layers


def _net(*middle, filters=6):
    """A convolution, what is to be tried, and a classifier."""

    def build():
        inputs = layers.Input((8, 8, 1), name="image")
        x = layers.Conv2D(filters, 3, name="stem")(inputs)
        for part in middle:
            x = part()(x) if isinstance(part, type) else part(x)
        x = layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(10, name="logits")(x))

    return build


def _layer(kind, *args, **kwargs):
    return lambda x: kind(*args, **kwargs)(x)


def _norm(x):
    return layers.BatchNormalization(momentum=0.9)(x)


def _gate(x):
    """Squeeze and excitation."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(3, 1, activation="relu")(y)
    y = layers.Conv2D(6, 1, activation="sigmoid")(y)
    return layers.Multiply()([x, y])


def _branches(x):
    a = layers.Conv2D(4, 1, name="narrow")(x)
    b = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    return layers.Concatenate()([a, b])


def _preactivation(x):
    y = layers.ReLU()(_norm(x))
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(y)
    y = layers.ReLU()(_norm(y))
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(y)
    return layers.Add()([x, y])


def _attention(x):
    """Two heads over tokens with positions, the first of which is read."""
    x = layers.Reshape((36, 6))(x)
    x = PositionEmbedding(class_token=True, name="position")(x)
    heads = [layers.Reshape((37, 2, 3))(layers.Dense(6)(x)) for _ in range(3)]
    query, key, value = (layers.Permute((2, 1, 3))(head) for head in heads)
    weights = layers.Softmax()(MatMul(transpose_b=True)([query, key]))
    x = layers.Permute((2, 1, 3))(MatMul()([weights, value]))
    x = layers.Cropping1D((0, 30))(layers.Reshape((37, 6))(x))
    return layers.GlobalAveragePooling1D()(x)


def _windows(x):
    """Attention weights of four windows of 3x3 that were shifted."""
    x = CyclicShift(1)(x)
    x = layers.Reshape((2, 3, 2, 18))(x)
    x = layers.Permute((1, 3, 2, 4))(x)
    x = layers.Reshape((4, 9, 6))(x)
    scores = MatMul(transpose_b=True)([layers.Dense(6)(x), x])
    regions = [[0] * 9, [0] * 6 + [1] * 3, [0, 0, 1] * 3, [0, 1, 2] * 3]
    scores = AttentionBias(3, 1, regions, name="bias")(scores)
    return MatMul()([layers.Softmax()(scores), x])


def _hard_swish(x):
    return x * (tf.nn.relu6(x + 3.0) * (1.0 / 6.0))


def _rescaled():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Rescaling(0.5, offset=0.25)(inputs)
    x = layers.Normalization(mean=0.1, variance=0.3)(x)
    x = layers.Flatten()(layers.Conv2D(6, 3)(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def _nested():
    inner_inputs = layers.Input((6, 6, 6))
    y = layers.Conv2D(6, 3, name="stem", activation="relu")(inner_inputs)
    inner = keras.Model(inner_inputs, y, name="inner")
    return _net(inner, layers.MaxPooling2D)()


def _sequential():
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            keras.Sequential([layers.Conv2D(6, 3), layers.ReLU()]),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


NETS = {
    "conv": _net(_layer(layers.Conv2D, 5, 3, strides=2, activation="relu")),
    "dilated_groups": _net(
        _layer(layers.Conv2D, 6, 3, groups=2, dilation_rate=2)
    ),
    "depthwise": _net(_layer(layers.DepthwiseConv2D, 3), layers.ReLU),
    "depthwise_multiplier": _net(
        _layer(layers.DepthwiseConv2D, 3, depth_multiplier=3), _norm
    ),
    "separable": _net(
        _layer(layers.SeparableConv2D, 8, 3, depth_multiplier=2), _norm
    ),
    "transposed": _net(
        _layer(layers.Conv2DTranspose, 4, 3, strides=2, padding="same"),
        _norm,
        layers.ReLU,
    ),
    "dense": _net(layers.Flatten, _layer(layers.Dense, 20), _norm, layers.ReLU),
    "einsum_dense": _net(
        _layer(
            layers.EinsumDense,
            "abcd,def->abcef",
            (None, 6, 2, 4),
            bias_axes="ef",
        ),
    ),
    "batch_norm_after": _net(_norm, layers.ReLU),
    "batch_norm_before": _net(_norm, _layer(layers.Conv2D, 5, 3)),
    "batch_norm_alone": _net(layers.MaxPooling2D, _norm, layers.ReLU),
    "batch_norm_flat": _net(layers.Flatten, _norm),
    "pre_activation": _net(_preactivation),
    "multiply": _net(_gate),
    "concatenate": _net(_branches),
    "average_pooling": _net(_layer(layers.AveragePooling2D, 3, 2, "same")),
    "max_pooling": _net(_layer(layers.MaxPooling2D, 3, 2, "same")),
    "global_max": _net(layers.GlobalMaxPooling2D),
    "padding": _net(
        layers.ZeroPadding2D, _layer(layers.Cropping2D, ((1, 0), (0, 2)))
    ),
    "upsampling": _net(layers.UpSampling2D),
    "upsampling_bilinear": _net(
        _layer(layers.UpSampling2D, interpolation="bilinear")
    ),
    "permute": _net(_layer(layers.Permute, (2, 1, 3))),
    "relu_alone": _net(layers.MaxPooling2D, layers.ReLU),
    "relu6": _net(_layer(layers.ReLU, 6.0)),
    "leaky_relu": _net(layers.LeakyReLU),
    "hard_swish": _net(_hard_swish),
    "swish": _net(_layer(layers.Conv2D, 5, 3, activation="swish")),
    "gelu": _net(_layer(layers.Activation, "gelu")),
    "sigmoid": _net(_layer(layers.Activation, "sigmoid")),
    "tanh": _net(_layer(layers.Activation, "tanh")),
    "softmax": _net(layers.Flatten, _layer(layers.Dense, 10), layers.Softmax),
    "rescaling": _rescaled,
    "nested": _nested,
    "sequential": _sequential,
    "layer_norm": _net(layers.LayerNormalization),
    "attention": _net(_attention),
    "windows": _net(_windows),
}


def randomized(build):
    """Returns an untrained net with norms and biases that do something."""
    keras.utils.set_random_seed(0)
    model = harness.randomize_norms(build())
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "bias" in variable.name:
            variable.assign(0.2 * generator.normal(size=variable.shape))
    return model
