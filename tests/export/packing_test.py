import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from export import packing


@strategies.composite
def _levels(draw):
    """Returns (bits, levels of that many bits), of any shape."""
    bits = draw(strategies.sampled_from(packing.SIZES))
    limit = 2 ** (bits - 1)
    shape = draw(arrays.array_shapes(max_dims=4, max_side=7))
    elements = strategies.integers(-limit, limit - 1)
    return bits, draw(arrays.arrays(np.int8, shape, elements=elements))


@hypothesis.given(_levels())
def test_unpacking_inverts_packing(case):
    bits, levels = case
    data = packing.packed(levels, bits)
    assert data.dtype == np.uint8
    assert data.shape == (-(-levels.size * bits // 8),)
    found = packing.unpacked(data, bits, levels.size)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, levels.reshape(-1))


@hypothesis.given(
    strategies.sampled_from(packing.SIZES),
    arrays.arrays(np.uint8, strategies.integers(0, 20)),
)
def test_packing_inverts_unpacking(bits, data):
    size = data.size * 8 // bits
    levels = packing.unpacked(data, bits, size)
    assert levels.size == size
    np.testing.assert_array_equal(packing.packed(levels, bits), data)


@hypothesis.given(_levels())
def test_the_fewest_bits_are_enough_and_no_fewer_are(case):
    _, levels = case
    levels = np.maximum(levels, -127)
    bits = packing.fewest_bits(levels)
    largest = np.abs(levels.astype(int)).max()
    assert largest <= 2 ** (bits - 1) - 1
    smaller = [size for size in packing.SIZES if size < bits]
    assert all(largest > 2 ** (size - 1) - 1 for size in smaller)


@pytest.mark.parametrize(
    ("bits", "levels", "data"),
    [
        (4, [[1, -1], [7, -7], [0, 5]], [0xF1, 0x97, 0x50]),
        (4, [-2], [0x0E]),
        # -1 is 0b11, 1 is 0b01, -2 is 0b10; the first one is the lowest
        (2, [1, -1, 0, -2], [0b10_00_11_01]),
        (2, [[-1, -1, 1], [0, 1, 0]], [0b00_01_11_11, 0b00_00_00_01]),
        (8, [1, -1, -128], [0x01, 0xFF, 0x80]),
    ],
)
def test_packing_by_hand(bits, levels, data):
    found = packing.packed(np.int8(levels), bits)
    np.testing.assert_array_equal(found, data)


@pytest.mark.parametrize(
    ("levels", "bits"),
    [
        ([0], 2),
        ([-1, 1], 2),
        ([-2], 4),  # 2 bits would hold it, but not its negative
        ([3, 7, -7], 4),
        ([-8], 8),
        ([127, -127], 8),
        ([], 2),
    ],
)
def test_fewest_bits(levels, bits):
    assert packing.fewest_bits(np.array(levels, np.int8)) == bits


def test_data_that_end_early():
    assert packing.unpacked(np.uint8([0xFF]), 2, 100).size == 4
