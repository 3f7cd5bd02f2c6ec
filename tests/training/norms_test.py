"""Re-estimated BatchNorm statistics: what changes, and that nothing else does.

The variance of BatchNorm of images is that of a sample, divided by n - 1.
"""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme, calibrate, quantize_model
from qgen_tf.quantization.quantize import wrappers
from qgen_tf.training import reestimate_norms
from tests import harness

layers = keras.layers
SIZES = (3, 7, 6)


def _batches(shape, seed=0):
    generator = np.random.default_rng(seed)
    return [
        generator.normal(index, 1.0 + index, (size, *shape)).astype(np.float32)
        for index, size in enumerate(SIZES)
    ]


def _dataset(batches):
    return tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=tf.TensorSpec((None, *batches[0].shape[1:])),
    )


def _statistics(batches):
    """Returns the mean over batches of mean and variance, by their sizes."""
    axes = tuple(range(batches[0].ndim - 1))
    means = [batch.mean(axes, dtype=np.float64) for batch in batches]
    variances = [
        batch.astype(np.float64).var(axes, ddof=1 if len(axes) > 1 else 0)
        for batch in batches
    ]
    return (
        np.average(means, axis=0, weights=SIZES),
        np.average(variances, axis=0, weights=SIZES),
    )


def _assert_has(norm, statistics):
    mean, variance = statistics
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-5)


def test_statistics_of_quantized_convolutions():
    inputs = layers.Input((4, 4, 2))
    x = layers.Conv2D(3, 1, name="conv")(inputs)
    norm = layers.BatchNormalization(name="norm")
    outputs = layers.ReLU()(norm(x))
    batches = _batches((4, 4, 2))
    twin = quantize_model(
        keras.Model(inputs, outputs),
        BitScheme(32, 32, overrides=(("conv", 2, 32),)),
    )
    reestimate_norms(twin, _dataset(batches))
    (wrapper,) = wrappers(twin)
    ((weight, quantizer, variables),) = wrapper._weight_vars
    kernel = quantizer.grid(weight, variables).values[0, 0]
    assert len(np.unique(kernel[:, 0])) <= 3
    bias = wrapper.layer.bias.numpy()
    _assert_has(
        twin.get_layer("norm"),
        _statistics([batch @ kernel + bias for batch in batches]),
    )
    assert twin.get_layer("norm").momentum == norm.momentum


def test_a_norm_behind_a_norm_sees_normalized_batches():
    inputs = layers.Input((5,))
    first = layers.BatchNormalization(name="first", epsilon=1e-3)
    second = layers.BatchNormalization(name="second")
    model = keras.Model(inputs, second(layers.ReLU()(first(inputs))))
    batches = _batches((5,))
    reestimate_norms(model, _dataset(batches))
    _assert_has(first, _statistics(batches))
    normalized = [
        np.maximum((batch - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-3), 0.0)
        for batch in batches
    ]
    _assert_has(second, _statistics(normalized))


def _net():
    """BatchNorm before Add, which has a grid of its own; Dropout; nested."""
    inner_inputs = layers.Input((8, 8, 4))
    inner = keras.Model(
        inner_inputs, layers.BatchNormalization(name="inner")(inner_inputs)
    )
    inputs = layers.Input((8, 8, 1))
    x = skip = inner(layers.Conv2D(4, 3, padding="same")(inputs))
    x = layers.Dropout(0.5)(layers.ReLU()(x))
    x = layers.Conv2D(4, 1)(x)
    x = layers.BatchNormalization(name="before_add")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, skip]))
    return keras.Model(inputs, layers.Dense(10)(x))


@pytest.mark.parametrize("quantizer", ["float", "lsq", "minmax"])
def test_nothing_else_changes(quantizer):
    model = _net()
    if quantizer != "float":
        model = quantize_model(model, BitScheme(4, 4, quantizer=quantizer))
        calibrate(model, harness.calibration_data())
        assert any(
            isinstance(wrapper.layer, layers.BatchNormalization)
            for wrapper in wrappers(model)
        )
    before = [variable.numpy() for variable in model.variables]
    images = harness.train_images()[:96]
    data = tf.data.Dataset.from_tensor_slices((images, images)).batch(32)
    reestimate_norms(model, data)
    changed = 0
    for variable, old in zip(model.variables, before, strict=True):
        if "moving" in variable.name:
            changed += 1
            assert not np.array_equal(variable.numpy(), old), variable.name
        else:
            np.testing.assert_array_equal(variable, old, variable.name)
    assert changed == 4
    again = [variable.numpy() for variable in model.variables]
    reestimate_norms(model, data)
    for variable, old in zip(model.variables, again, strict=True):
        np.testing.assert_array_equal(variable, old, variable.name)
    assert model.layers[1].output is not None  # each layer is called once


def test_a_frozen_norm_keeps_its_statistics():
    inputs = layers.Input((5,))
    norm = layers.BatchNormalization()
    model = keras.Model(inputs, norm(inputs))
    norm.trainable = False
    reestimate_norms(model, _dataset(_batches((5,))))
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(5))
    np.testing.assert_array_equal(norm.moving_variance, np.ones(5))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (_dataset(_batches((5,))).take(0), "are empty"),
        (_dataset(_batches((4,))), r"batch 0 .* has the shape .* takes"),
        (_dataset([np.full((2, 5), np.nan, np.float32)]), "contains NaN"),
    ],
)
def test_data_that_do_not_fit(dataset, message):
    inputs = layers.Input((5,))
    norm = layers.BatchNormalization(momentum=0.7)
    model = keras.Model(inputs, norm(inputs))
    with pytest.raises(errors.DataError, match=message):
        reestimate_norms(model, dataset)
    assert norm.momentum == 0.7
