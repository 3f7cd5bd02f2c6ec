import inspect

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import ActivationGrid, grids, quant_ops
from tests import harness


def test_weight_grid_by_hand():
    latent = np.float32([[0.26, -0.24], [0.75, -9.0]])
    grid = harness.weight_grid(latent, np.float32(0.5), 3)
    np.testing.assert_array_equal(grid.levels, [[1, 0], [2, -3]])
    assert grid.levels.dtype == np.int8 and grid.values.dtype == np.float32
    np.testing.assert_array_equal(grid.values, [[0.5, 0.0], [1.0, -1.5]])
    np.testing.assert_array_equal(grid.latent, latent)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_grid_rounds_as_training_does(bits):
    generator = np.random.default_rng(bits)
    latent = generator.normal(size=(3, 3, 4, 6)).astype(np.float32)
    step = generator.uniform(0.01, 0.5, size=(1, 1, 1, 6)).astype(np.float32)
    grid = harness.weight_grid(latent, step, bits)
    high = 2 ** (bits - 1) - 1
    trained = quant_ops.quantize(latent, tf.constant(step), -high, high)
    np.testing.assert_array_equal(grid.values, trained)
    assert np.abs(grid.levels).max() <= high


def test_scaling_flips_signs_and_keeps_steps_positive():
    latent = np.float32([[0.3, 0.3, 0.3], [-0.6, -0.6, -0.6]])
    grid = harness.weight_grid(latent, np.float32(0.25), 4)
    np.testing.assert_array_equal(grid.levels, [[1] * 3, [-2] * 3])
    scaled = grids.scaled(grid, np.float32([[2.0, -0.5, 0.0]]))
    np.testing.assert_array_equal(scaled.levels, [[1, -1, 0], [-2, 2, 0]])
    np.testing.assert_array_equal(scaled.step_size, [[0.5, 0.125, 0.25]])
    np.testing.assert_allclose(scaled.latent, latent * [[2.0, -0.5, 0.0]])
    assert (scaled.step_size > 0).all() and scaled.levels.dtype == np.int8


def test_bias_levels_round_half_to_even_and_saturate():
    steps = np.float32([2.0, 2.0, 2.0, 4e-12, 4e-12])
    bias = np.float32([0.74, 0.25, -0.75, 1.0, -1.0])
    limit = 2**31 - 1
    grid = harness.weight_grid(np.zeros((3, 5), np.float32), steps, 4)
    grid = grids.with_bias(grid, bias, input_step_size=0.25)
    assert grid.bias_levels.dtype == np.int32
    np.testing.assert_array_equal(grid.bias_levels, [1, 0, -2, limit, -limit])
    np.testing.assert_array_equal(grid.bias(0.25)[:3], [0.5, 0.0, -1.0])


def _arguments(layer):
    return set(inspect.signature(type(layer).__init__).parameters) - {
        "self",
        "kwargs",
    }


def test_activation_quantizer_round_trip():
    layer = ActivationGrid(0.25, 3, 4, name="grid")
    assert _arguments(layer) <= set(layer.get_config())
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    values = tf.constant([[-9.0, -0.3, 0.4, 9.0]])
    np.testing.assert_array_equal(again(values), [[-1.0, -0.25, 0.5, 0.75]])


def test_activation_quantizer_passes_gradients_inside_its_range():
    layer = ActivationGrid(0.25, 4, 0)
    values = tf.constant([-0.1, 0.1, 3.7, 3.8])
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = tf.reduce_sum(layer(values))
    np.testing.assert_array_equal(tape.gradient(loss, values), [0, 1, 1, 0])
    assert layer.trainable_weights == []
