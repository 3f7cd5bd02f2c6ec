import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from export.runtime_add import FixedPointAdd, XnnpackAdd, xnnpack_takes
from qgen_tf.quantization import ActivationGrid
from tests.export import operators

# every pair of levels
A, B = np.meshgrid(*[np.arange(-128, 128, dtype=np.int8)] * 2)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
@pytest.mark.parametrize(
    ("steps", "is_taken"),
    [
        ((0.02, 0.03, 0.04), True),
        ((0.01, 0.01, 0.01), True),
        ((1.0, 0.5, 1.0), True),
        ((0.5, 0.0006, 0.4), True),
        ((0.5, 0.0003, 0.4), False),
    ],
)
def test_is_what_the_runtime_computes(kernels, steps, is_taken):
    a_step, b_step, step = steps
    assert xnnpack_takes((a_step, b_step), step) == is_taken
    is_xnnpack = kernels == "xnnpack" and is_taken
    cls = XnnpackAdd if is_xnnpack else FixedPointAdd
    found = operators.run(
        "ADD",
        [(A, a_step, 5), (B, b_step, 0)],
        (A.shape, np.int8, step, -7),
        options=schema.AddOptionsT(),
        version=2,
        kernels=kernels,
    )
    values = (A - 5.0).astype(np.float32) * np.float32(a_step)
    layer = cls((a_step, b_step), step, B.astype(np.int64))
    wanted = np.rint(layer(values).numpy() / step) - 7
    np.testing.assert_array_equal(found, np.clip(wanted, -128, 127))


@pytest.mark.parametrize("cls", [XnnpackAdd, FixedPointAdd])
def test_a_constant_is_a_second_tensor(cls):
    a = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
    levels = np.array([3, -2, 0, 7, 1])
    b = (levels * 0.25).astype(np.float32)
    found = cls((0.5, 0.25), 0.125, levels)(a)
    np.testing.assert_array_equal(found, a + b)
    np.testing.assert_array_equal(cls((0.5, 0.25), 0.125)([a, b]), a + b)


@pytest.mark.parametrize(
    ("cls", "wanted"),
    # 1 and 3 steps of a half
    [(XnnpackAdd, [1, 2, 0, -1]), (FixedPointAdd, [1, 2, -1, -2])],
)
def test_halves(cls, wanted):
    values = np.array([0.5, 1.5, -0.5, -1.5], np.float32)
    layer = cls((0.5, 0.5), 1.0)
    np.testing.assert_array_equal(layer([values, np.zeros(4)]), wanted)


def test_the_grid_behind_cuts_it():
    values = np.array([100.0, -200.0], np.float32)
    sums = XnnpackAdd((1.0, 1.0), 1.0)([values, values])
    np.testing.assert_array_equal(sums, [200.0, -400.0])
    np.testing.assert_array_equal(
        ActivationGrid(1.0, 8, 128)(sums), [127, -128]
    )
