"""Binary classifiers of one weight and one example each, in one network."""

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras


def network(weights):
    """The logit of example i is weight i, and it is right while above 0."""
    inputs = keras.Input([len(weights)])
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, dense(inputs), name="net")
    dense.kernel.assign(np.reshape(weights, (-1, 1)))
    return model


def dataset(count, batch_size=None):
    """The unit vectors, of class 1."""
    images = np.eye(count, dtype=np.float32)
    labels = np.ones(count, np.int64)
    examples = tf.data.Dataset.from_tensor_slices((images, labels))
    return examples.batch(batch_size or count).cache()
