"""Small networks on the bundled digits; what is trained is trained once."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets

from qgen_tf.compat import keras
from qgen_tf.models import nin
from qgen_tf.quantization import (
    QUANTIZERS as ALL_QUANTIZERS,
)
from qgen_tf.quantization import (
    BitScheme,
    WeightGrid,
    calibrate,
    quantize_model,
)

layers = keras.layers
NUM_TRAIN = 1347
# of tests that take seconds for each; the others by --full
QUANTIZERS = [
    pytest.param(
        name,
        marks=() if name in ("lsq", "dorefa", "minmax") else pytest.mark.full,
    )
    for name in ALL_QUANTIZERS
]


@functools.cache
def digits():
    """Returns (images, labels), float32 [1797, 8, 8, 1] in [-1, 1]."""
    images, labels = datasets.load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1) / 8.0 - 1.0
    return images.astype(np.float32), labels


def train_images():
    return digits()[0][:NUM_TRAIN]


def test_images():
    return digits()[0][NUM_TRAIN:]


def calibration_data():
    return tf.data.Dataset.from_tensor_slices(train_images()[:256]).batch(64)


def tiny_nin():
    return nin((8, 8, 1), 10, width=12, depth=2)


def small_nin():
    return nin((8, 8, 1), 10, width=8, depth=1)


def _norm(**kwargs):
    return layers.BatchNormalization(momentum=0.9, **kwargs)


def residual():
    """One block with a projection, max pooling, zero padding, Flatten."""
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(x)
    x = _norm(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(2)(x)
    y = layers.Conv2D(12, 3, padding="same", name="branch")(x)
    y = _norm(name="branch_bn")(y)
    x = layers.Conv2D(12, 1, name="shortcut")(x)
    x = layers.ReLU(name="add_relu")(layers.Add(name="add")([x, y]))
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="res")


def mobile():
    """Depthwise convolutions with ReLU6 and a linear bottleneck, added."""
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    x = skip = layers.ReLU(6.0)(_norm()(x))
    x = layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=2, use_bias=False, name="depth2"
    )(x)
    x = layers.ReLU(6.0)(_norm(name="depth2_bn")(x))
    x = layers.Conv2D(6, 1, name="project")(x)
    x = _norm(name="project_bn")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.DepthwiseConv2D(3, strides=2, name="depth1")(x)
    x = layers.ReLU(6.0)(_norm(name="depth1_bn")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="mob")


def randomize_norms(model, seed=0):
    """Gives BatchNorm random statistics and gammas: negative ones, a zero."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                values = 0.3 * generator.normal(size=variable.shape)
                if "variance" in variable.name:
                    values = np.exp(values)
                if "gamma" in variable.name:
                    values = values + np.where(values < 0.0, -0.7, 0.7)
                    values[0] = 0.0
                    values[1] = -1.0
                variable.assign(values.astype(np.float32))
    return model


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit(model, optimizer, epochs):
    images, labels = digits()
    model.compile(optimizer, loss())
    return model.fit(
        images[:NUM_TRAIN],
        labels[:NUM_TRAIN],
        batch_size=32,
        epochs=epochs,
        verbose=0,
    )


def accuracy(model):
    images, labels = digits()
    logits = model.predict(images[NUM_TRAIN:], verbose=0)
    assert np.isfinite(logits).all()
    return float((logits.argmax(1) == labels[NUM_TRAIN:]).mean())


@functools.cache
def trained(build):
    """Returns the float model of `build` after training; do not change it."""
    keras.utils.set_random_seed(1)
    model = build()
    fit(model, keras.optimizers.Adam(5e-3), epochs=8)
    return model


@functools.cache
def calibrated(build, scheme):
    """Returns the quantized twin of `trained(build)` before it trains."""
    model = quantize_model(trained(build), scheme)
    calibrate(model, calibration_data())
    return model


@functools.cache
def quantization_aware(build, scheme):
    """Returns the quantized twin of `trained(build)` after an epoch of SGD."""
    keras.utils.set_random_seed(2)
    model = quantize_model(trained(build), scheme)
    calibrate(model, calibration_data())
    history = fit(model, keras.optimizers.SGD(0.01, 0.9), epochs=1)
    assert np.isfinite(history.history["loss"]).all()
    return model


def steps_of(model):
    """Maps names of step sizes of a quantized model to their values."""
    return {
        variable.name: np.exp(variable.numpy())
        for variable in model.variables
        if "log_step" in variable.name
    }


def weight_grid(latent, step_size, bits):
    """Returns the grid of a weight with the step sizes that are given."""
    high = 2 ** (bits - 1) - 1
    levels = np.rint(np.clip(latent / step_size, -high, high))
    return WeightGrid(
        levels.astype(np.int8), np.asarray(step_size), bits, latent
    )


def output_step(network):
    return network.model.output.node.layer.step_size


W8A8 = BitScheme(8, 8)
W4A4 = BitScheme(4, 4)
