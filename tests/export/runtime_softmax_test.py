import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export.runtime_softmax import FixedPointSoftmax, RuntimeSoftmax
from tests.export import operators


@pytest.mark.parametrize(
    ("kernels", "cls"),
    [
        ("xnnpack", RuntimeSoftmax),
        ("builtin", RuntimeSoftmax),
        ("reference", FixedPointSoftmax),
    ],
)
@pytest.mark.parametrize("step", [0.011, 0.07, 0.3])
@pytest.mark.parametrize("size", [1, 17, 197])
def test_is_what_the_runtime_computes(kernels, cls, step, size):
    generator = np.random.default_rng(size)
    levels = generator.integers(-128, 128, (2000, size), np.int8)
    levels[1000:] = levels[1000:] // 4
    found = operators.run(
        "SOFTMAX",
        [(levels, step, 3)],
        (levels.shape, np.int8, 1 / 256, -128),
        options=schema.SoftmaxOptionsT(beta=1.0),
        version=2,
        kernels=kernels,
    )
    values = (levels - 3.0).astype(np.float32) * np.float32(step)
    wanted = np.rint(256.0 * cls(step)(values).numpy()) - 128.0
    np.testing.assert_array_equal(found, np.minimum(wanted, 127.0))


def test_a_compiled_function_rounds_alike():
    """A probability is within a millionth of where two levels meet."""
    step = 0.4189222753047943
    levels = (
        *(0, 3, 0, -1, -3, -2, -3, 3, -1, 3, 2, 1, 1, 3, 0, 1),
        *(0, -2, -3, -1, 0, -2, -3, -2, 1, 1, 1, 1, 3, 3, -1, -5),
        *(-4, -4, -3, -2, -5, -2, 1, 1, 2, 1, 0, 1, 3, -4, 0, 1),
        *(3, 0, -2, -2, -1, 2, 2, 2, 2, 3, 3, 5, 3, 4, 2, 2),
    )
    row = np.float32(levels) * np.float32(step)
    values = np.tile(row, (16, 1))  # so many at once are computed otherwise
    layer = RuntimeSoftmax(step)
    np.testing.assert_array_equal(tf.function(layer)(values), layer(values))


@pytest.mark.parametrize("cls", [RuntimeSoftmax, FixedPointSoftmax])
def test_equal_scores_share(cls):
    values = np.zeros((1, 8), np.float32)
    np.testing.assert_array_equal(cls(0.1)(values), np.full((1, 8), 1 / 8))
