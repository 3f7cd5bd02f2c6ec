"""Networks and losses whose Hessian is known."""

import math

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras

_GENERATOR = np.random.default_rng(0)
IMAGES = _GENERATOR.normal(size=(32, 5)).astype(np.float32)
LABELS = _GENERATOR.integers(3, size=32)


def dataset(images=IMAGES, labels=LABELS, batch_size=20):
    """Returns batches of images and labels, by default of unequal sizes."""
    examples = tf.data.Dataset.from_tensor_slices((images, labels))
    return examples.batch(batch_size).cache()


def network(*kernels, between=keras.layers.ReLU):
    """A network without biases, linear but for a layer between each two."""
    inputs = x = keras.Input([kernels[0].shape[0]])
    for index, kernel in enumerate(kernels):
        dense = keras.layers.Dense(
            kernel.shape[1], use_bias=False, name=f"dense{index}"
        )
        x = dense(between()(x) if index else x)
        dense.kernel.assign(kernel)
    return keras.Model(inputs, x, name="net")


def quadratic(labels, outputs):
    """L = |y|^2 / 2; for y = x W its Hessian is E[x x'] for each column."""
    del labels
    return tf.reduce_sum(outputs**2, axis=-1) / 2


def linear(labels, outputs):
    """The sum of y; for y = x W its Hessian is zero."""
    del labels
    return tf.reduce_sum(outputs, axis=-1)


def matrix(layer, kernel, shape):
    """Returns the layer as a matrix, [inputs, outputs]."""
    config = {**layer.get_config(), "use_bias": False}
    copy = type(layer).from_config(config)
    size = math.prod(shape)
    copy.build((None, *shape))
    copy.set_weights([kernel])
    rows = copy(np.eye(size, dtype=np.float32).reshape(size, *shape)).numpy()
    return rows.reshape(size, -1).astype(np.float64)
