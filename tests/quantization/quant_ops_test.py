"""The arithmetic, against integers and derivatives worked out by hand."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from qgen_tf.quantization import quant_ops

RANGES = [(-1, 1), (-2, 1), (0, 3), (-7, 7), (-3, 12), (-128, 127), (0, 255)]


@pytest.mark.parametrize(
    ("values", "step", "low", "high", "levels"),
    [
        # halves go to the even integer
        ([0.5, 1.5, 2.5, -0.5, -1.5], 1.0, -7, 7, [0, 2, 2, 0, -2]),
        ([0.1, 0.4, -0.9, 3.0, -3.0], 0.5, -1, 1, [0, 1, -1, 1, -1]),
        ([0.24, 0.26, 7.9, 8.1, -1.0], 0.5, 0, 15, [0, 1, 15, 15, 0]),
        ([-64.0, -63.6, 63.6, 70.0], 0.5, -128, 127, [-128, -127, 127, 127]),
    ],
)
def test_integers_by_hand(values, step, low, high, levels):
    found = quant_ops.quantize(
        tf.constant(values), tf.constant(step), low, high
    )
    np.testing.assert_array_equal(found, np.float32(step) * np.float32(levels))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=600),
    st.floats(2.0**-10, 2.0**10, width=32),
    st.sampled_from(RANGES),
)
def test_levels_are_few_and_stay(values, step, levels_range):
    low, high = levels_range
    step = tf.constant(step)
    once = quant_ops.quantize(tf.constant(values), step, low, high)
    levels = np.rint(once.numpy() / step.numpy())
    np.testing.assert_array_equal(once, levels * step.numpy())
    assert levels.min() >= low and levels.max() <= high
    assert len(np.unique(levels)) <= high - low + 1
    twice = quant_ops.quantize(once, step, low, high)
    np.testing.assert_array_equal(once, twice)
    inside = (levels > low) & (levels < high)
    error = np.abs(once.numpy() - np.float32(values))[inside]
    assert (error <= step.numpy() * (0.5 + 1e-3)).all()


def _closed_form(values, step, low, high):
    """Equations 3 and 5 of LSQ, literally."""
    ratio = values / step
    inside = (ratio >= low) & (ratio <= high)
    slope = np.where(inside, np.rint(ratio) - ratio, np.clip(ratio, low, high))
    return inside.astype(np.float64), slope


@pytest.mark.parametrize(
    ("shape", "step_shape"),
    [
        ((40,), ()),
        ((3, 3, 4, 5), (1, 1, 1, 5)),
        ((3, 3, 4, 2), (1, 1, 4, 2)),
        ((3, 3, 1, 2), (1, 1, 1, 2)),
    ],
)
@pytest.mark.parametrize(("low", "high"), [(-7, 7), (0, 3)])
def test_gradients_are_those_of_lsq(shape, step_shape, low, high):
    generator = np.random.default_rng(0)
    values = generator.normal(scale=2.0, size=shape)
    upstream = generator.normal(size=shape)
    step = generator.uniform(0.1, 0.4, size=step_shape)
    inside, slope = _closed_form(values, step, low, high)
    ratio = values / step
    assert inside.any() and (ratio < low).any() and (ratio > high).any()
    values, step = tf.constant(values), tf.constant(step)
    with tf.GradientTape() as tape:
        tape.watch([values, step])
        loss = tf.reduce_sum(
            upstream * quant_ops.quantize(values, step, low, high)
        )
    of_values, of_step = tape.gradient(loss, [values, step])
    np.testing.assert_allclose(of_values, upstream * inside, atol=1e-12)
    shared = tuple(
        axis
        for axis in range(len(shape))
        if not step_shape or step_shape[axis] == 1
    )
    wanted = (upstream * slope).sum(shared).reshape(step_shape)
    np.testing.assert_allclose(of_step, wanted, rtol=1e-9, atol=1e-12)
    assert of_step.shape == step_shape


@pytest.mark.parametrize("step_shape", [(), (1, 30)])
@pytest.mark.parametrize("levels_range", [*RANGES, (-8, 7), (-3, 0)])
def test_what_is_known_before_does_not_matter(levels_range, step_shape):
    generator = np.random.default_rng(0)
    low, high = levels_range
    values = generator.normal(scale=0.3 * (high - low), size=(40, 30))
    values = tf.constant(values if low else np.abs(values), tf.float32)
    upstream = tf.constant(generator.normal(size=values.shape), tf.float32)
    step = tf.fill(step_shape, 0.37)
    results = []
    for ends, known_before in (
        ((low, high), False),
        ((low, high), True),
        ((tf.constant(1.0 * low), tf.constant(1.0 * high)), False),
    ):
        with tf.GradientTape() as tape:
            tape.watch([values, step])
            quantized = quant_ops.quantize(
                values,
                step,
                *ends,
                nonnegative=low == 0,
                values_stay=known_before,
                learned=known_before,
            )
        gradients = tape.gradient(quantized, [values, step], upstream)
        results.append((quantized, *gradients))
    (known, of_values, of_step), *others = results
    for other, of_values_, of_step_ in others:
        np.testing.assert_array_equal(known, other)
        np.testing.assert_array_equal(of_values, of_values_)
        np.testing.assert_allclose(of_step, of_step_, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_behind_a_relu_a_graph_computes_what_its_operations_compute(
    jit_compile,
):
    generator = np.random.default_rng(0)
    values = generator.normal(scale=3.0, size=(40, 30)).astype(np.float32)
    values[:3] = 0.0  # where the gradient of the ReLU is 0, not 1
    upstream = tf.constant(generator.normal(size=values.shape), tf.float32)

    def results(values, step):
        with tf.GradientTape() as tape:
            tape.watch([values, step])
            quantized = quant_ops.quantize(
                tf.nn.relu(values), step, 0, 15, nonnegative=True
            )
        gradients = tape.gradient(quantized, [values, step], upstream)
        return (quantized, *gradients)

    inputs = (tf.constant(values), tf.constant(0.37))
    compiled = tf.function(results, jit_compile=jit_compile)
    quantized, of_values, of_step = compiled(*inputs)
    quantized_, of_values_, of_step_ = results(*inputs)
    np.testing.assert_allclose(quantized, quantized_, rtol=1e-6)
    np.testing.assert_array_equal(of_values, of_values_)
    inside = (values > 0.0) & (values <= 15 * 0.37)
    np.testing.assert_array_equal(of_values, np.where(inside, upstream, 0.0))
    np.testing.assert_allclose(of_step, of_step_, rtol=1e-4)


@pytest.mark.parametrize("per_channel", [False, True])
def test_hessian_of_a_quadratic_loss(per_channel):
    generator = np.random.default_rng(1)
    low, high, size = -3, 3, 12
    factor = generator.normal(size=(size, size))
    curvature = factor @ factor.T
    target = generator.normal(size=size)
    steps = np.array([0.3, 0.5]) if per_channel else np.array(0.4)
    values = generator.normal(size=size)
    point = tf.constant(np.concatenate([values, np.atleast_1d(steps)]))

    def loss(point):
        weights = tf.reshape(point[:size], (size // 2, 2))
        step = tf.reshape(point[size:], (1, 2)) if per_channel else point[size]
        quantized = quant_ops.quantize(weights, step, low, high)
        error = tf.reshape(quantized, [-1]) - target
        return tf.tensordot(error, tf.linalg.matvec(curvature, error), 1) / 2.0

    with tf.GradientTape() as outer:
        outer.watch(point)
        with tf.GradientTape() as inner:
            inner.watch(point)
            value = loss(point)
        gradient = inner.gradient(value, point)
    hessian = outer.jacobian(gradient, point).numpy()

    each_step = np.broadcast_to(steps, (size // 2, 2)).reshape(-1)
    inside, slope = _closed_form(values, each_step, low, high)
    assert 0 < inside.sum() < size
    channel = np.tile(np.eye(2), (size // 2, 1)) if per_channel else 1.0
    jacobian = np.hstack(
        [np.diag(inside), slope[:, None] * channel * np.ones((size, 1))]
    )
    np.testing.assert_allclose(
        hessian, jacobian.T @ curvature @ jacobian, atol=1e-9
    )
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    assert np.abs(np.diag(hessian)[:size][inside == 1]).min() > 0.1


def test_scaled_gradient():
    values = tf.constant([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        scaled = quant_ops.scale_gradient(
            values, tf.constant([2.0, -3.0, 100.0]), 7.0
        )
        loss = tf.reduce_sum(scaled * [0.5, 2.0, 1.0])
    np.testing.assert_array_equal(scaled, values)
    np.testing.assert_array_equal(tape.gradient(loss, values), [1.0, -6.0, 7.0])


def test_straight_through():
    values = tf.constant([0.2, 0.7])
    with tf.GradientTape() as tape:
        tape.watch(values)
        rounded = quant_ops.straight_through(values**2, tf.round(values))
        loss = tf.reduce_sum(rounded * [3.0, 5.0])
    np.testing.assert_array_equal(rounded, [0.0, 1.0])
    np.testing.assert_allclose(tape.gradient(loss, values), [1.2, 7.0])


@pytest.mark.parametrize("shape", [(), (1, 3)])
def test_one_bit_gradients_per_step(shape):
    values = tf.constant([[0.5, -0.1, 0.0], [-0.3, 2.1, -0.2]])
    step = tf.ones(shape) * 0.5
    upstream = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    with tf.GradientTape() as tape:
        tape.watch([values, step])
        loss = tf.reduce_sum(upstream * quant_ops.binarize(values, step))
    of_values, of_step = tape.gradient(loss, [values, step])
    np.testing.assert_array_equal(of_values, [[1, 2, 3], [4, 0, 6]])
    signed = np.float32([[1, -2, 3], [-4, 5, -6]])
    wanted = signed.sum(0, keepdims=True) if shape else signed.sum()
    np.testing.assert_array_equal(of_step, wanted)


@pytest.mark.parametrize("step_shape", [(), (1, 1)])
@pytest.mark.parametrize("levels_range", [(-8, 7), (0, 15), (-3, 12)])
def test_a_model_that_diverges_is_seen_to(levels_range, step_shape):
    low, high = levels_range
    values = tf.constant([[np.nan, 1.0, np.inf]] * 9)
    for step in (0.25, np.nan):
        found = quant_ops.quantize(
            values, tf.fill(step_shape, step), low, high, nonnegative=low == 0
        )
        wanted = np.array([np.nan, 1.0, 0.25 * high]) + 0.0 * step
        np.testing.assert_array_equal(found, np.tile(wanted, (9, 1)))
