import numpy as np
import pytest
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


@pytest.mark.parametrize("cls", [RuntimeSoftmax, FixedPointSoftmax])
def test_equal_scores_share(cls):
    values = np.zeros((1, 8), np.float32)
    np.testing.assert_array_equal(cls(0.1)(values), np.full((1, 8), 1 / 8))
