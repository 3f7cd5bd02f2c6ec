"""How step sizes start, learn and stay positive."""

import math

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import quantizers
from tests.quantization.quantizers import wrapped


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("shape", "axes", "shared"),
    [
        ((3, 3, 4, 6), (-1,), (0, 1, 2)),
        ((3, 3, 4, 2), (-2, -1), (0, 1)),
        ((3, 3, 4, 6), (), (0, 1, 2, 3)),
        ((40, 3), (), (0, 1)),
    ],
)
def test_first_step_sizes_are_of_the_weights(bits, shape, axes, shared):
    generator = np.random.default_rng(bits)
    values = generator.standard_t(3, size=shape)
    values[..., -1] *= 0.01
    quantizer = quantizers.LSQWeightQuantizer(bits, axes=axes)
    _, step_vars = wrapped.weight(quantizer, values)
    high = 2 ** (bits - 1) - 1
    magnitude = np.abs(values.astype(np.float32)).astype(np.float64)
    wanted = np.minimum(
        2 * magnitude.mean(shared, keepdims=bool(axes)) / np.sqrt(high),
        magnitude.max(shared, keepdims=bool(axes)) / high,
    )
    found = quantizer.stored_step_size(step_vars).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=3e-6)


def test_gradient_descent_moves_a_step_size_as_lsq_does():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 3, 4, 6)).astype(np.float32)
    upstream = 1e-3 * generator.normal(size=values.shape).astype(np.float32)
    quantizer = quantizers.LSQWeightQuantizer(3, axes=(-1,))
    weight, step_vars = wrapped.weight(quantizer, values)
    step_vars["log_step"].assign_sub(0.1 * tf.ones([1, 1, 1, 6]))
    step = quantizer.stored_step_size(step_vars).numpy().astype(np.float64)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(upstream * quantizer(weight, True, step_vars))
    log_step = step_vars["log_step"]
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.apply_gradients([(tape.gradient(loss, log_step), log_step)])

    ratio = values / step
    inside = np.abs(ratio) <= 3
    slope = np.where(inside, np.rint(ratio) - ratio, np.clip(ratio, -3, 3))
    of_step = (upstream * slope).sum((0, 1, 2), keepdims=True)
    scale = 1.0 / math.sqrt(3 * 3 * 4 * 3)  # weights a step size, highest level
    gradient = scale * of_step / step
    assert 1e-4 < np.abs(gradient).max() < 0.1
    moved = np.log(quantizer.stored_step_size(step_vars).numpy() / step)
    np.testing.assert_allclose(moved, -0.5 * gradient, rtol=1e-3, atol=2e-7)


def test_the_scale_of_activation_gradients_counts_features_not_examples():
    quantizer = quantizers.LSQActivationQuantizer(2, signed=False)
    steps = {
        "log_step": tf.Variable(math.log(0.5)),
        "zero_point": tf.Variable(0.0),
    }
    values = np.random.default_rng(0).uniform(0.0, 1.5, size=(7, 4, 5))
    values = tf.constant(values, tf.float32)
    with tf.GradientTape() as tape:
        loss = 1e-3 * tf.reduce_sum(quantizer(values, True, steps))
    ratio = values.numpy() / 0.5
    of_step = 1e-3 * (np.rint(ratio) - ratio).sum()
    gradient = tape.gradient(loss, steps["log_step"])
    wanted = of_step / 0.5 / math.sqrt(4 * 5 * 3)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3)
    assert abs(wanted) > 1e-5


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.SGD, keras.optimizers.Adam],
)
def test_no_update_kills_a_step_size(optimizer, bits, sign):
    optimizer = optimizer(1e4)
    quantizer = quantizers.LSQWeightQuantizer(bits, axes=(-1,))
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    weight, step_vars = wrapped.weight(quantizer, values)
    log_step = step_vars["log_step"]
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = sign * tf.reduce_sum(
                tf.square(quantizer(weight, True, step_vars) - 1.0)
            )
        gradient = tape.gradient(loss, log_step)
        assert np.isfinite(gradient).all()
        optimizer.apply_gradients([(gradient, log_step)])
        step = quantizer.stored_step_size(step_vars).numpy()
        assert np.isfinite(step).all() and (step > 1e-9).all()
        quantized = quantizer(weight, True, step_vars).numpy()
        assert np.isfinite(quantized).all()


def test_a_channel_of_zeros_stays_finite():
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    values[..., 2] = 0.0
    quantizer = quantizers.LSQWeightQuantizer(4, axes=(-1,))
    weight, step_vars = wrapped.weight(quantizer, values)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(quantizer(weight, True, step_vars)))
        variables = [weight, step_vars["log_step"]]
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        weight.assign_add(tf.ones_like(weight) * 1e-3)
    for variable in variables:
        assert np.isfinite(variable.numpy()).all()


def test_half_precision_goes_in_and_out():
    quantizer = quantizers.LSQActivationQuantizer(8, signed=True)
    steps = {
        "log_step": tf.Variable(math.log(0.1)),
        "zero_point": tf.Variable(128.0),
    }
    values = tf.constant([[0.31, -0.26]], tf.bfloat16)
    found = quantizer(values, False, steps)
    assert found.dtype == tf.bfloat16
    wanted = tf.cast(tf.constant([[0.3, -0.3]]), tf.bfloat16)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD, keras.optimizers.Adam]
)
def test_the_learning_rate_multiplier_multiplies_the_movement(optimizer):
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    moved = []
    for multiplier in (1.0, 0.25):
        quantizer = quantizers.LSQWeightQuantizer(
            3, axes=(-1,), learning_rate_multiplier=multiplier
        )
        weight, variables = wrapped.weight(quantizer, values)
        before = quantizer.stored_step_size(variables).numpy()
        with tf.GradientTape() as tape:
            loss = 1e-2 * tf.reduce_sum(quantizer(weight, True, variables) ** 2)
        log_step = variables["log_step"]
        gradient = tape.gradient(loss, log_step)
        optimizer(0.5).apply_gradients([(gradient, log_step)])
        after = quantizer.stored_step_size(variables).numpy()
        moved.append(np.log(after / before))
    assert np.abs(moved[0]).min() > 1e-5
    np.testing.assert_allclose(moved[1], 0.25 * moved[0], rtol=2e-2, atol=1e-7)


def test_one_bit_is_the_sign_at_the_mean_magnitude():
    values = np.float32([[0.5, -0.1], [-0.3, 0.0], [2.0, -0.1]])
    quantizer = quantizers.LSQWeightQuantizer(1)
    weight, variables = wrapped.weight(quantizer, values)
    step = np.abs(values).mean()
    upstream = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with tf.GradientTape() as tape:
        quantized = quantizer(weight, True, variables)
        loss = tf.reduce_sum(upstream * quantized)
    wanted = [[1, -1], [-1, 1], [1, -1]]
    np.testing.assert_allclose(quantized / step, wanted, rtol=1e-6)
    gradient = tape.gradient(loss, weight)
    np.testing.assert_array_equal(gradient, [[1, 2], [3, 4], [0, 6]])


def test_the_zero_point_of_lsq_plus_is_an_integer_that_learns():
    values = np.random.default_rng(0).normal(size=(512, 4)) + 0.7
    quantizer = quantizers.LSQPlusActivationQuantizer(3, signed=True)
    variables = wrapped.calibrated(quantizer, values)
    start = quantizer.grid(variables)[1]
    assert 0 < start < 4  # fewer levels below zero than above
    step = quantizer.grid(variables)[0]
    upstream = 1e-4 * np.random.default_rng(1).normal(size=values.shape)
    with tf.GradientTape() as tape:
        outputs = quantizer(tf.constant(values, tf.float32), True, variables)
        loss = tf.reduce_sum(upstream.astype(np.float32) * outputs)
    zero_point = variables["zero_point"]
    gradient = tape.gradient(loss, zero_point)
    ratio = values / step
    outside = (ratio < -start) | (ratio > 7 - start)
    assert outside.any()
    scale = 1.0 / math.sqrt(4 * (7 - start)) / step**2  # four features
    wanted = -step * (upstream * outside).sum() * scale
    assert 1e-6 < abs(wanted) < 0.1
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3)
    for value in (start + 0.4, start + 0.6):
        zero_point.assign(value)
        found = quantizer(tf.constant(values, tf.float32), True, variables)
        levels = np.rint(found.numpy() / step)
        assert levels.min() == -round(value)
        np.testing.assert_allclose(found, levels * step, rtol=1e-5)
