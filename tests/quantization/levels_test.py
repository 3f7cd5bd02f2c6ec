"""Which integers there are, and how far they reach at first."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.quantization import levels

# bits -> signed narrow, signed, unsigned
_RANGES = {
    2: ((-1, 1), (-2, 1), (0, 3)),
    3: ((-3, 3), (-4, 3), (0, 7)),
    4: ((-7, 7), (-8, 7), (0, 15)),
    5: ((-15, 15), (-16, 15), (0, 31)),
    6: ((-31, 31), (-32, 31), (0, 63)),
    7: ((-63, 63), (-64, 63), (0, 127)),
    8: ((-127, 127), (-128, 127), (0, 255)),
}


@pytest.mark.parametrize("bits", _RANGES)
def test_level_range(bits):
    narrow, signed, unsigned = _RANGES[bits]
    level_range = levels.level_range
    assert level_range(bits, signed=True, narrow=True) == narrow
    assert level_range(bits, signed=True, narrow=False) == signed
    assert level_range(bits, signed=False, narrow=False) == unsigned
    assert narrow[1] - narrow[0] + 1 == 2**bits - 1
    assert signed[1] - signed[0] == unsigned[1] - unsigned[0] == 2**bits - 1


def test_one_bit_is_a_sign():
    assert levels.level_range(1, signed=True, narrow=True) == (-1, 1)


@pytest.mark.parametrize(
    ("bits", "narrow"),
    [(0, True), (9, True), (32, True), (1, False), (9, False)],
)
def test_bits_out_of_range(bits, narrow):
    smallest = 1 if narrow else 2
    with pytest.raises(ValueError, match=f"{bits}, not in {smallest}..8"):
        levels.level_range(bits, signed=True, narrow=narrow)


def test_unsigned_levels_are_not_narrow():
    with pytest.raises(ValueError, match="cannot be narrow"):
        levels.level_range(4, signed=False, narrow=True)


def test_initial_step_size_is_the_smaller_of_two_rules():
    # 2 * mean / sqrt(7) = 0.7559 and max / 7
    found = levels.initial_step_size(
        tf.constant([1.0, 1.0, 0.0]), tf.constant([9.0, 3.5, 0.0]), 7
    )
    # zeros get a range of one
    np.testing.assert_allclose(found, [2 / 7**0.5, 0.5, 1 / 7], rtol=1e-6)
