"""LayerNormalization as Keras has it in training, and as its file thereafter.

That the whole numbers are those of the runtime, tests of `export` show.
"""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    align,
    calibrate,
    quantize_model,
)
from qgen_tf.quantization.aligned_norm import AlignedLayerNorm
from qgen_tf.quantization.norm_arithmetic import NormArithmetic
from qgen_tf.quantization.norm_grid import NormGrid
from qgen_tf.quantization.quantize import wrappers
from tests import harness, layer_nets

layers = keras.layers
STEP = np.float32(0.02)  # of the outputs
LEVELS = np.random.default_rng(0).integers(-128, 128, (7, 5, 24))
INPUTS = np.float32(0.1) * LEVELS.astype(np.float32)


def _layer(**settings):
    """Returns a layer, aligned, and the one of Keras with its weights."""
    generator = np.random.default_rng(1)
    layer = AlignedLayerNorm(epsilon=1e-6, **settings)
    layer.build(INPUTS.shape)
    for weight in layer.trainable_weights:
        mean = float("gamma" in weight.name)
        weight.assign(generator.normal(mean, 0.3, 24))
    layer.align(_grid(layer))
    keras_layer = layers.LayerNormalization(epsilon=1e-6, **settings)
    keras_layer.build(INPUTS.shape)
    keras_layer.set_weights(layer.get_weights()[:-1])
    return layer, keras_layer


def _grid(layer):
    return NormGrid.of(
        layer.gamma if layer.scale else tf.ones(24),
        layer.beta if layer.center else None,
        input_step_size=0.1,
        input_levels=256,
        output_step_size=STEP,
        epsilon=1e-6,
    ).numpy()


def _assert_same(layer, other, **settings):
    found, wanted = layer(INPUTS, **settings), other(INPUTS)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("center", [True, False])
def test_inference_has_whole_numbers(center):
    layer, keras_layer = _layer(center=center)
    wanted = NormArithmetic(_grid(layer))(tf.constant(LEVELS)).numpy()
    np.testing.assert_allclose(layer(INPUTS) / STEP, wanted, atol=1e-4)
    off = np.abs(keras_layer(INPUTS) / STEP - wanted)
    assert 0.4 < off.max() < 0.6


def test_training_is_that_of_keras():
    _assert_same(*_layer(), training=True)


def test_gradients_are_those_of_keras():
    def gradients(layer):
        inputs = tf.constant(INPUTS)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs) * LEVELS.astype(np.float32))
        return tape.gradient(loss, [inputs, *layer.trainable_weights])

    for found, wanted in zip(*map(gradients, _layer()), strict=True):
        assert np.abs(wanted).max() > 1.0
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_training_on_forgets_the_steps():
    layer, keras_layer = _layer()
    before = layer(INPUTS)
    for norm in (layer, keras_layer):
        norm.gamma.assign_add(np.eye(24)[3] * 1e-6)
    _assert_same(layer, keras_layer)
    layer.align(_grid(layer))
    np.testing.assert_allclose(layer(INPUTS), before, atol=1.01 * STEP)
    assert np.abs(layer(INPUTS) - keras_layer(INPUTS)).max() > 0.4 * STEP


@pytest.mark.parametrize(
    "settings", [{"scale": False}, {"dtype": "mixed_bfloat16"}], ids=str
)
def test_others_stay_those_of_keras(settings):
    _assert_same(*_layer(**settings))


def _twin():
    model = layer_nets.randomized(layer_nets.NETS["layer_norm"])
    return quantize_model(model, BitScheme(8, 8))


def test_an_aligned_model_infers_so_wherever_it_is_loaded():
    twin = _twin()
    calibrate(twin, harness.calibration_data())
    (norm,) = (
        wrapper.layer
        for wrapper in wrappers(twin)
        if isinstance(wrapper.layer, AlignedLayerNorm)
    )
    beta = np.random.default_rng(0).normal(size=norm.beta.shape)
    norm.beta.assign(beta)
    images = harness.test_images()
    traced = tf.function(twin)
    before = traced(images)
    moves = align(twin)
    assert 0.1 < moves[norm.name] <= max(moves.values()) <= 0.5 + 1e-3
    after = traced(images)  # what was traced before knows of it
    assert np.any(after != before)
    weights = [value.copy() for value in twin.get_weights()]
    loaded = _twin()
    loaded.set_weights(weights)
    np.testing.assert_array_equal(loaded(images), after)
    # and once more: no bit changes
    assert max(align(loaded).values()) < 1e-3
    for old, new in zip(weights, loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
