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


def test_bias_levels_round_half_to_even():
    steps = np.float32([2.0, 2.0, 2.0])
    bias = np.float32([0.74, 0.25, -0.75])
    grid = harness.weight_grid(np.zeros((3, 3), np.float32), steps, 4)
    grid = grids.with_bias(grid, bias, input_step_size=0.25)
    assert grid.bias_levels.dtype == np.int32
    np.testing.assert_array_equal(grid.bias_levels, [1, 0, -2])
    np.testing.assert_array_equal(grid.bias(0.25), [0.5, 0.0, -1.0])
    np.testing.assert_array_equal(grid.step_size, steps)


def test_a_large_bias_makes_the_steps_of_its_channel_coarser():
    steps = np.float32([1.0, 2.0**-31, 2.0**-60])
    latent = steps * np.float32([[7, 6, 7], [-7, -3, -7]])
    grid = harness.weight_grid(latent, steps, 4)
    bias = np.float32([1.0, 1.0, -1.0])
    grid = grids.with_bias(grid, bias, input_step_size=0.5)
    np.testing.assert_array_equal(
        grid.step_size, np.float32([1.0, 2.0**-29, 2.0**-29])
    )
    np.testing.assert_array_equal(grid.levels, [[7, 2, 0], [-7, -1, 0]])
    np.testing.assert_array_equal(grid.bias_levels, [2, 2**30, -(2**30)])
    np.testing.assert_array_equal(grid.bias(0.5), bias)
    assert grid.levels.dtype == np.int8 and grid.values.dtype == np.float32


def test_a_large_bias_makes_the_only_step_coarser():
    for shape in ((), (1, 1)):
        step = np.full(shape, 2.0**-40, np.float32)
        grid = harness.weight_grid(7 * np.full((2, 2), step), step, 4)
        grid = grids.with_bias(grid, np.float32([1.0, 0.25]), 1.0)
        assert grid.step_size == 2.0**-30 and grid.step_size.shape == shape
        np.testing.assert_array_equal(grid.bias_levels, [2**30, 2**28])


def _arguments(layer):
    return set(inspect.signature(type(layer).__init__).parameters) - {
        "self",
        "kwargs",
    }


@pytest.mark.parametrize(
    "layer",
    [
        ActivationGrid(0.25, 3, 4, name="grid"),
        grids.AverageGrid(0.25, 3, 4, rounds_up=True, name="average"),
    ],
)
def test_activation_grid_round_trip(layer):
    assert _arguments(layer) <= set(layer.get_config())
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    values = tf.constant([[-9.0, -0.3, 0.4, 9.0]])
    np.testing.assert_array_equal(again(values), [[-1.0, -0.25, 0.5, 0.75]])


def test_activation_grid_passes_gradients_inside_its_range():
    layer = ActivationGrid(0.25, 4, 0)
    values = tf.constant([-0.1, 0.1, 3.7, 3.8])
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = tf.reduce_sum(layer(values))
    np.testing.assert_array_equal(tape.gradient(loss, values), [0, 1, 1, 0])
    assert layer.trainable_weights == []


def test_halves_round_up_or_away_from_the_zero_of_int8():
    halves = tf.range(-3.5, 4.0) * 0.25
    up = grids.AverageGrid(0.25, 4, 8, rounds_up=True)
    np.testing.assert_array_equal(up(halves) / 0.25, np.arange(-3.0, 5.0))
    # with a zero point of 8 the level 7 is 127 in int8, the level -120 is 0
    assert up.int8_zero_point == 120
    away = grids.AverageGrid(0.25, 4, 8, rounds_up=False)
    np.testing.assert_array_equal(away(halves) / 0.25, np.arange(-3.0, 5.0))
    symmetric = grids.AverageGrid(0.25, 8, 128, rounds_up=False)
    assert symmetric.int8_zero_point == 0
    np.testing.assert_array_equal(
        symmetric(halves) / 0.25, [-4, -3, -2, -1, 1, 2, 3, 4]
    )
    thirds = tf.constant([-2.34, -0.34, 0.34, 2.34]) * 0.25
    np.testing.assert_array_equal(symmetric(thirds) / 0.25, [-2, 0, 0, 2])
