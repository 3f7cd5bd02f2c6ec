import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from export import tflite
from export.interpreter import Interpreter
from export.runtime_model import FixedPointGrid, SumGrid, runtime_model
from qgen_tf.quantization import ActivationGrid, BitScheme, inference_model
from tests import harness


def doubling_high_multiplication(a, b):
    """Returns a * b / 2^31, halves up, in integers (gemmlowp)."""
    product = a * b
    nudge = 2**30 if product >= 0 else 1 - 2**30
    return math.trunc((product + nudge) / 2**31)


def divided_by_power_of_two(value, exponent):
    """Returns value / 2^exponent, halves away from zero, in integers."""
    mask = 2**exponent - 1
    threshold = (mask >> 1) + (value < 0)
    return (value >> exponent) + ((value & mask) > threshold)


def requantized(total, scale, count=1):
    """Returns total / count * scale as the reference kernels round it."""
    fraction, exponent = math.frexp(scale)
    multiplier = round(fraction * 2**31)
    digits = count.bit_length() - 1
    multiplier, exponent = (multiplier << digits) // count, exponent - digits
    left, right = max(exponent, 0), max(-exponent, 0)
    return divided_by_power_of_two(
        doubling_high_multiplication(total << left, multiplier), right
    )


def _grid(cls, ratio, *, num_bits=8, zero_point=128, step_size=1.0, **kwargs):
    grid = ActivationGrid(step_size, num_bits, zero_point, name="grid")
    return cls(grid, np.float32(ratio * step_size), np.float32(1.0), **kwargs)


@settings(deadline=None)
@given(
    total=st.integers(-(2**19), 2**19),
    ratio=st.floats(1e-4, 3.0).map(np.float32),
    count=st.sampled_from([1, 4, 9, 64]),
)
def test_reference_kernels_round_as_integers_do(total, ratio, count):
    layer = _grid(FixedPointGrid, ratio, count=count)
    value = tf.constant([total * np.float64(ratio) / count], tf.float64)
    wanted = requantized(total, ratio, count)
    assert layer(value).numpy() == [min(max(wanted, -128), 127)]


@pytest.mark.parametrize(
    ("total", "once", "twice"),
    # 0.3 is 0.6 / 2: 8 gives 4.8, so 5, so 2.5, so 3; rounded once, 2.4 is 2
    [
        (8, 2, 3),
        (-8, -2, -3),
        (1, 0, 1),
        (-1, 0, -1),
        (7, 2, 2),
        (600, 127, 127),
    ],
)
def test_kernels_round_once_or_twice(total, once, twice):
    value = tf.constant([total * np.float64(np.float32(0.3))], tf.float64)
    assert _grid(SumGrid, 0.3)(value).numpy() == [once]
    assert _grid(FixedPointGrid, 0.3)(value).numpy() == [twice]


def test_xnnpack_rounds_halves_to_even():
    values = tf.constant([0.5, 1.5, -0.5, -1.5], tf.float64)
    levels = _grid(SumGrid, 0.5)(values).numpy()
    np.testing.assert_array_equal(levels, [0, 2, 0, -2])


@pytest.mark.parametrize("cls", [SumGrid, FixedPointGrid])
def test_float_errors_of_a_sum_change_nothing(cls):
    # three sums of 0.5 make 1.5, which an error below would round to 1
    values = tf.constant([1.5 - 1e-6, 1.5, 1.5 + 1e-6], tf.float64)
    np.testing.assert_array_equal(_grid(cls, 0.5)(values), [2, 2, 2])


@pytest.mark.parametrize("cls", [SumGrid, FixedPointGrid])
def test_what_a_relu_cut_is_the_rounded_limit(cls):
    # 6 lies between the sums 5 and 10
    layer = _grid(cls, 5.0, zero_point=0, limit=6.0)
    values = layer(tf.constant([5.0, 6.0], tf.float64))
    np.testing.assert_array_equal(values, [5.0, 6.0])


def _steps_off(model, content, kernels):
    interpreter = Interpreter(content, kernels=kernels)
    images = harness.test_images()
    found = interpreter.predict(images)
    wanted = model(images).numpy()
    off = np.rint(np.abs(found - wanted) / interpreter.output_step_size)
    return off, 100.0 * np.mean(found.argmax(1) == wanted.argmax(1))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (2, 2), (1, 8)], ids=str)
@pytest.mark.parametrize(
    "build", [harness.tiny_nin, harness.residual, harness.mobile]
)
def test_is_the_twin_of_the_file(build, bits):
    network = inference_model(
        harness.quantization_aware(build, BitScheme(*bits))
    )
    content = tflite.convert(network)
    twins = {
        kernels: runtime_model(network, kernels=kernels)
        for kernels in ("xnnpack", "reference")
    }
    for kernels, model in twins.items():
        off, agreement = _steps_off(model, content, kernels)
        assert off.max() <= 1
        assert off.mean() < 0.005
        assert agreement >= 99.7  # all of 450 examples but one
    # the two are not the same network
    off, _ = _steps_off(twins["xnnpack"], content, "reference")
    assert off.mean() > 0.01


def test_a_float_network_is_its_own_twin():
    network = inference_model(harness.tiny_nin())
    assert runtime_model(network) is network.model
