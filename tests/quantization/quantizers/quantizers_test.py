"""What holds for every quantizer, each against its formula in NumPy."""

import inspect

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from qgen_tf.compat import keras
from qgen_tf.quantization import QUANTIZERS, quantizers
from tests.quantization.quantizers import reference, wrapped

SHAPE = (3, 3, 4, 6)
AXES = {(): (0, 1, 2, 3), (-1,): (0, 1, 2)}
WEIGHTS = {name: family.weights for name, family in QUANTIZERS.items()}
ACTIVATIONS = {name: family.activations for name, family in QUANTIZERS.items()}

settings = hypothesis.settings(deadline=None, max_examples=12)


def _weights(seed, scale=0.2):
    generator = np.random.default_rng(seed)
    values = scale * generator.standard_t(4, size=SHAPE)
    return values.astype(np.float32).astype(np.float64)


def _activations(seed, signed):
    values = np.random.default_rng(seed).normal(size=(16, 5, 3))
    values = values if signed else np.abs(values)
    return values.astype(np.float32).astype(np.float64)


def _expected_weight(name, bits, values, step, shared):
    if name in ("pact", "dorefa"):
        return reference.dorefa_weight(values, shared, bits)
    if name == "minmax":
        return reference.minmax_weight(values, shared, bits)
    if bits == 1:
        return reference.sign(values, step)
    return reference.uniform(values, step, *reference.weight_limits(bits))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_and_their_integers(name, bits, axes):
    values = _weights(seed=bits)
    quantizer = WEIGHTS[name](bits, axes=axes)
    variable, variables = wrapped.weight(quantizer, values)
    grid = quantizer.grid(variable, variables)
    found = quantizer(variable, True, variables).numpy()
    np.testing.assert_array_equal(found, grid.values)
    wanted = _expected_weight(name, bits, values, grid.step_size, AXES[axes])
    off = np.abs(found - wanted) / grid.bin_width
    assert (off > 1e-3).sum() <= 1  # one tie may go either way in float32

    assert grid.levels.dtype == np.int8 and grid.num_bits == bits
    assert grid.step_size.shape == ((1, 1, 1, 6) if axes else ())
    assert len(np.unique(grid.levels)) <= 2**bits
    if bits == 1 or (bits < 8 and name in ("pact", "dorefa")):
        assert (np.abs(grid.levels) % 2 == 1).all() and grid.stride == 2
        assert np.abs(grid.levels).max() <= 2**bits - 1
    else:
        assert np.abs(grid.levels).max() <= 2 ** (bits - 1) - 1
        assert grid.stride == 1
    noise = np.abs(grid.latent - grid.values) / grid.bin_width
    inside = np.abs(grid.levels) < np.abs(grid.levels).max()
    assert not inside.any() or noise[inside].max() <= 0.5 + 1e-3


@settings
@hypothesis.given(
    st.sampled_from(sorted(WEIGHTS)),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
    st.floats(1e-3, 3.0),
)
def test_weights_of_any_scale(name, bits, seed, scale):
    values = _weights(seed, scale)
    quantizer = WEIGHTS[name](bits)
    variable, variables = wrapped.weight(quantizer, values)
    step = quantizer.grid(variable, variables).step_size
    found = quantizer(variable, True, variables).numpy()
    wanted = _expected_weight(name, bits, values, step, AXES[()])
    assert (np.abs(found - wanted) > 1e-3 * step).sum() <= 1


@settings
@hypothesis.given(
    st.sampled_from(sorted(ACTIVATIONS)),
    st.integers(2, 8),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_activations(name, bits, signed, seed):
    values = _activations(seed, signed)
    quantizer = ACTIVATIONS[name](bits, signed=signed)
    variables = wrapped.calibrated(quantizer, values)
    step, zero_point = quantizer.grid(variables)
    assert step > 0 and 0 <= zero_point <= 2**bits - 1
    if name not in ("lsq_plus", "minmax") or not signed:
        assert zero_point == (2 ** (bits - 1) if signed else 0)
    beyond = 2.0 * values  # clipped on both sides
    found = quantizer(tf.constant(beyond, tf.float32), False, variables).numpy()
    limits = -zero_point, 2**bits - 1 - zero_point
    wanted = reference.uniform(beyond, step, *limits)
    assert (np.abs(found - wanted) > 1e-3 * step).sum() <= 1
    levels = np.unique(np.rint(found / step))
    assert len(levels) <= 2**bits
    assert levels.min() >= limits[0] and levels.max() <= limits[1]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_sign_of_activations_is_seen_in_the_data(name, bits):
    for signed in (True, False):
        quantizer = ACTIVATIONS[name](bits, signed=None)
        variables = wrapped.calibrated(quantizer, _activations(0, signed))
        assert (quantizer.grid(variables)[1] > 0) == signed


def _gradients(quantizer, values, upstream, variables, watched):
    values = tf.constant(values, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([values, *watched])
        outputs = quantizer(values, True, variables)
        loss = tf.reduce_sum(upstream.astype(np.float32) * outputs)
    return tape.gradient(loss, [values, *watched])


def _weight_surrogate(name, bits, values, step):
    """Returns the smooth function through `values` that is differentiated."""
    if name in ("pact", "dorefa") and bits > 1:
        return np.tanh
    if name in ("minmax", "pact", "dorefa"):
        return lambda moved: moved
    if bits == 1:
        return lambda moved: np.clip(moved, -2 * step, 2 * step)
    limits = reference.weight_limits(bits)
    return lambda moved: reference.uniform_surrogate(
        moved, step, *limits, at=(values, step)
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("name", sorted(set(WEIGHTS) - {"ewgs"}))
def test_gradients_of_weights_are_finite_differences(name, bits):
    values = _weights(seed=1)
    quantizer = WEIGHTS[name](bits)
    variable, variables = wrapped.weight(quantizer, values)
    step = float(quantizer.grid(variable, variables).step_size)
    generator = np.random.default_rng(0)
    upstream, direction = generator.normal(size=(2, *SHAPE))
    direction[np.abs(values) == np.abs(values).max()] = 0.0  # where it bends
    (found,) = _gradients(quantizer, values, upstream, variables, [])
    surrogate = _weight_surrogate(name, bits, values, step)
    wanted = reference.finite_difference(
        lambda moved: (upstream * surrogate(moved)).sum(), values, direction
    )
    assert abs(wanted) > 0.1
    np.testing.assert_allclose(
        (found.numpy() * direction).sum(), wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"ewgs"}))
def test_gradients_of_activations_are_finite_differences(name, signed):
    values = _activations(0, signed)
    quantizer = ACTIVATIONS[name](3, signed=signed)
    variables = wrapped.calibrated(quantizer, values)
    if name == "minmax":
        variables["maximum"].assign(1.0)  # so that values are clipped
        quantizer.momentum = 1.0
    step, zero_point = quantizer.grid(variables)
    limits = -zero_point, 7 - zero_point
    values = 1.5 * values  # beyond what it has seen
    ratio = values / step
    assert (ratio > limits[1]).any() and (np.abs(ratio) < limits[1]).any()
    generator = np.random.default_rng(0)
    upstream, direction = generator.normal(size=(2, *values.shape))
    (found,) = _gradients(quantizer, values, upstream, variables, [])
    wanted = reference.finite_difference(
        lambda moved: (
            upstream * np.clip(moved, *(step * np.array(limits)))
        ).sum(),
        values,
        direction,
    )
    np.testing.assert_allclose(
        (found.numpy() * direction).sum(), wanted, rtol=1e-4
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("name", WEIGHTS)
def test_second_derivatives_of_weights(name, bits):
    """d/dw of the gradient of |q|^2 / 2 is the squared slope of q."""
    values = _weights(seed=2)
    quantizer = WEIGHTS[name](bits)
    variable, variables = wrapped.weight(quantizer, values)
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
        quantized = quantizer(variable, True, variables)
        loss = tf.reduce_sum(tf.square(quantized)) / 2.0
        gradient = inner.gradient(loss, variable)
    second = outer.gradient(gradient, variable).numpy()
    upstream = quantized.numpy().astype(np.float64)
    with tf.GradientTape() as tape:
        quantized = quantizer(variable, True, variables)
    slope = tape.gradient(quantized, variable).numpy()
    if name == "ewgs":
        # each of the two passes scales by the sign of what comes from above
        error = (values - upstream) / quantizer.grid(
            variable, variables
        ).step_size
        factor = 1.0 + 0.2 * np.sign(upstream) * np.clip(error, -0.5, 0.5)
        np.testing.assert_allclose(second, factor * slope, atol=1e-4)
        return
    if name in ("pact", "dorefa") and bits > 1:
        curvature = -2 * np.tanh(values) * (1 - np.tanh(values) ** 2)
        np.testing.assert_allclose(
            second, slope**2 + upstream * curvature, atol=1e-4
        )
        return
    np.testing.assert_allclose(second, slope**2, atol=1e-5)
    assert (second > 0.0).any()


ALL = [
    *(kind(3, axes=(-1,)) for kind in WEIGHTS.values()),
    *(kind(5, signed=True) for kind in ACTIVATIONS.values()),
    quantizers.FixedActivationQuantizer(8, step_size=1 / 128, zero_point=128),
    quantizers.LSQWeightQuantizer(1, learning_rate_multiplier=0.5),
    quantizers.EWGSWeightQuantizer(2, delta=0.7),
    quantizers.PACTActivationQuantizer(4, signed=None, decay=0.1),
    quantizers.MinMaxActivationQuantizer(4, signed=False, momentum=0.5),
]


@pytest.mark.parametrize("quantizer", ALL)
def test_config_round_trip(quantizer):
    config = quantizer.get_config()
    arguments = inspect.signature(type(quantizer).__init__).parameters
    assert set(config) == set(arguments) - {"self"}
    legacy = keras.utils.legacy
    again = legacy.deserialize_keras_object(
        legacy.serialize_keras_object(quantizer)
    )
    assert type(again) is type(quantizer)
    assert again.get_config() == config
