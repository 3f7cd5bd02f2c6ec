import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export.sum_grid import (
    DenseGrid,
    FixedPointGrid,
    MeanGrid,
    SumGrid,
    UpwardGrid,
)
from qgen_tf.quantization import ActivationGrid
from tests.export import operators

_AXIS = (np.array([1], np.int32), 1.0, 0)


def _grid(cls, ratio, *, num_bits=8, zero_point=128, step_size=1.0, **kwargs):
    grid = ActivationGrid(step_size, num_bits, zero_point, name="grid")
    return cls(grid, np.float32(ratio * step_size), np.float32(1.0), **kwargs)


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
    assert _grid(DenseGrid, 0.3)(value).numpy() == [once]
    assert _grid(FixedPointGrid, 0.3)(value).numpy() == [twice]


def test_xnnpack_rounds_halves_to_even():
    values = tf.constant([0.5, 1.5, -0.5, -1.5], tf.float64)
    levels = _grid(SumGrid, 0.5)(values).numpy()
    np.testing.assert_array_equal(levels, [0, 2, 0, -2])


@pytest.mark.parametrize(
    "cls", [SumGrid, DenseGrid, FixedPointGrid, UpwardGrid]
)
def test_float_errors_of_a_sum_change_nothing(cls):
    # three sums of 0.5 make 1.5, which an error below would round to 1
    values = tf.constant([1.5 - 1e-6, 1.5, 1.5 + 1e-6], tf.float64)
    np.testing.assert_array_equal(_grid(cls, 0.5)(values), [2, 2, 2])


@pytest.mark.parametrize(
    "cls", [SumGrid, DenseGrid, FixedPointGrid, UpwardGrid]
)
def test_what_a_relu_cut_is_the_rounded_limit(cls):
    # 6 lies between the sums 5 and 10
    layer = _grid(cls, 5.0, zero_point=0, limit=6.0)
    values = layer(tf.constant([5.0, 6.0], tf.float64))
    np.testing.assert_array_equal(values, [5.0, 6.0])


def test_optimized_kernels_take_both_halves_up():
    # -8 gives -4.8, so -5, so -2.5, so -2; rounded away from zero, -3
    value = tf.constant([-8 * np.float64(np.float32(0.3))], tf.float64)
    assert _grid(UpwardGrid, 0.3)(value).numpy() == [-2]
    assert _grid(FixedPointGrid, 0.3)(value).numpy() == [-3]


@pytest.mark.parametrize("zero_point", [-100, 0, 100])
def test_xnnpack_takes_the_zero_off_a_mean_in_float32(zero_point):
    generator = np.random.default_rng(0)
    levels = generator.integers(-8, 8, (2000, 64, 24)) + zero_point
    sums = (levels - zero_point).sum(1)
    # 22: many means lie where two levels meet, but for some millionths
    step, output_step = np.float32(22.0), np.float32(1.00001)
    found = operators.run(
        "MEAN",
        [(levels.astype(np.int8), step, zero_point), _AXIS],
        (sums.shape, np.int8, output_step, 0),
        kernels="xnnpack",
        options=schema.ReducerOptionsT(keepDims=False),
        version=2,
    )
    grid = ActivationGrid(output_step, 8, 128)
    means = tf.constant(sums * np.float64(step) / 64)
    arguments = (grid, step, np.ones(1, np.float32))
    once, wanted = (
        np.rint(layer(means).numpy() / output_step)
        for layer in (
            SumGrid(*arguments, count=64),
            MeanGrid(*arguments, zero_point=zero_point, count=64),
        )
    )
    np.testing.assert_array_equal(found, wanted)
    assert (once != wanted).any() == (zero_point != 0)
