"""Losses and hits of one and of several outputs, by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import CrossEntropy, average_sharpness
from qgen_tf.measures.losses import correct_of, cross_entropy, require_match
from qgen_tf.quantization import BitScheme, calibrate, quantize_model

PROBABILITIES = np.array([[0.25, 0.75], [0.9, 0.1], [0.5, 0.5]], np.float32)
LABELS = np.array([1, 1, 0])
LOSSES = [-math.log(0.75), -math.log(0.1), math.log(2)]
HITS = [True, False, True]  # the first of two equals


def _outputs(count, from_logits):
    """The same distributions, as any of the outputs that a model may have."""
    if count == 2:
        return np.log(PROBABILITIES) if from_logits else PROBABILITIES
    second = PROBABILITIES[:, 1:]
    return np.log(second / (1 - second)) if from_logits else second


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("from_logits", [True, False])
def test_all_kinds_of_outputs_agree(count, from_logits):
    loss_fn = CrossEntropy(from_logits)
    outputs = tf.constant(_outputs(count, from_logits), tf.float32)
    losses = loss_fn(tf.constant(LABELS), outputs)
    np.testing.assert_allclose(losses, LOSSES, rtol=1e-6)
    hits = correct_of(loss_fn, tf.constant(LABELS), outputs)
    np.testing.assert_array_equal(hits, HITS)


@pytest.mark.parametrize("count", [1, 2])
def test_a_probability_of_zero_is_a_large_loss(count):
    outputs = tf.constant([[1.0, 0.0]])[:, -count:]
    (loss,) = CrossEntropy(from_logits=False)(tf.constant([1]), outputs)
    assert float(loss) == pytest.approx(-math.log(1e-7), rel=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_nan_is_wrong(count):
    outputs = tf.fill([2, count], np.float32("nan"))
    labels = tf.constant([0, 1])
    assert not np.any(correct_of(cross_entropy, labels, outputs))


def test_a_loss_without_hits_takes_the_largest_output():
    outputs = tf.constant([[0.0, 2.0, 1.0]])
    hits = correct_of(lambda labels, outputs: None, tf.constant([1]), outputs)
    assert hits.numpy().tolist() == [True]


def _model(activation):
    inputs = keras.Input([6, 6, 1])
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(3)(x)
    return keras.Model(inputs, keras.layers.Activation(activation)(x))


def _dataset():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(12, 6, 6, 1)).astype(np.float32)
    labels = generator.integers(3, size=12)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_not_taken_for_logits(activation):
    with pytest.raises(errors.ConfigError, match="from_logits=False"):
        average_sharpness(_model(activation), _dataset())
    require_match(_model("linear"), cross_entropy)


def test_a_model_of_probabilities_measures_as_its_logits():
    model = _model("softmax")
    logits = keras.Model(model.inputs, model.layers[-2].output)
    found = average_sharpness(
        model, _dataset(), CrossEntropy(from_logits=False), num_samples=4
    )
    expected = average_sharpness(logits, _dataset(), num_samples=4)
    assert found.value == pytest.approx(expected.value, rel=1e-3, abs=1e-6)


def test_quantized_probabilities_are_not_taken_for_logits():
    model = quantize_model(_model("softmax"), BitScheme(8, 8))
    calibrate(model, _dataset())
    for point in ("deployed", "latent"):
        with pytest.raises(errors.ConfigError, match="from_logits=False"):
            average_sharpness(model, _dataset(), point=point)
    average_sharpness(model, _dataset(), CrossEntropy(from_logits=False))
