"""Images on the grid of an integer input."""

import numpy as np
import pytest

from export.lane import on_grid
from qgen_tf import errors


@pytest.mark.parametrize(
    ("dtype", "zero_point", "wanted"),
    [
        (np.int8, 0, [-128, -2, 0, 2, 127]),
        (np.int8, -128, [-128, -128, -128, -126, 127]),
        (np.int8, 127, [-128, 125, 127, 127, 127]),
        (np.uint8, 128, [0, 126, 128, 130, 255]),
    ],
)
@pytest.mark.parametrize("which", [[0], [4], [0, 4], [1, 2, 3], [3], [1]])
def test_what_leaves_the_range_is_cut_off(dtype, zero_point, wanted, which):
    images = np.float32([-np.inf, -1.25, 0.25, 0.75, np.inf])  # halves to even
    levels = on_grid(images[which], 0.5, zero_point, dtype)
    assert levels.dtype == np.float32
    np.testing.assert_array_equal(levels, np.float32(wanted)[which])


@pytest.mark.parametrize("others", [0.0, 1e9, -np.inf])
def test_an_image_that_holds_nan_is_named(others):
    images = np.full((4, 2, 2, 1), others, np.float32)
    images[2, 1, 0, 0] = np.nan
    with pytest.raises(errors.DataError, match="image 12 holds NaN"):
        on_grid(images, 0.5, 0, np.int8, start=10)
