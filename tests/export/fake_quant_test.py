import numpy as np
import pytest

from export.fake_quant import FakeQuantActivation
from qgen_tf.quantization import ActivationGrid


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
@pytest.mark.parametrize("zero_point", ["none", "few", "half", "all"])
@pytest.mark.parametrize("after_relu", [True, False])
def test_activations_are_on_the_grid_that_was_trained(
    bits, zero_point, after_relu
):
    zero_points = {"none": 0, "few": 1, "half": 2 ** (bits - 1)}
    grid = ActivationGrid(
        0.037, bits, zero_points.get(zero_point, 2**bits - 1), name="grid"
    )
    values = np.linspace(-11.0, 11.0, 5000, dtype=np.float32)
    ties = np.abs(values / 0.037 % 1.0 - 0.5) < 1e-3
    values = values[~ties]
    if after_relu:
        values = np.maximum(values, 0.0)
    found = FakeQuantActivation(grid, after_relu=after_relu)(values)
    wanted = grid(values).numpy() / 0.037
    levels = np.unique(np.rint(wanted))
    low = 0 if after_relu else grid.low
    np.testing.assert_array_equal(levels, np.arange(low, grid.high + 1))
    np.testing.assert_allclose(found / np.float32(0.037), wanted, atol=1e-3)
    file_levels = levels + grid.int8_zero_point
    assert file_levels.max() == 127 and file_levels.min() >= -128
