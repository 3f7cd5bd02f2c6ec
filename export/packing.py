"""Weights of 2 and 4 bits in bytes, as the runtime lays them out."""

from __future__ import annotations

import numpy as np

SIZES = (2, 4, 8)


def fewest_bits(levels: np.ndarray) -> int:
    """Returns the smallest of 2, 4 and 8 bits that hold all levels.

    The range is symmetric, as the runtime has it: the levels of b bits are
    -(2^(b-1) - 1) to 2^(b-1) - 1.
    """
    largest = int(np.abs(levels, dtype=np.int16).max(initial=0))
    return next(bits for bits in SIZES if largest < 2 ** (bits - 1))


def packed(levels: np.ndarray, num_bits: int) -> np.ndarray:
    """Puts levels into bytes, the first one into the lowest bits.

    Rows follow each other without a gap; the last byte is filled with zeros.

    Args:
      levels: int8, of any shape, in -2^(b-1) to 2^(b-1) - 1.
      num_bits: b; 2, 4 or 8.

    Returns:
      uint8 [ceil(levels.size * b / 8)].
    """
    fields = levels.astype(np.uint8).reshape(-1) & (2**num_bits - 1)
    shifts = _shifts(num_bits)
    fields = np.pad(fields, (0, -fields.size % shifts.size))
    return np.bitwise_or.reduce(fields.reshape(-1, shifts.size) << shifts, 1)


def unpacked(data: np.ndarray, num_bits: int, size: int) -> np.ndarray:
    """Inverts `packed`.

    Args:
      data: uint8 [bytes].
      num_bits: 2, 4 or 8.
      size: number of levels.

    Returns:
      int8 [size], or fewer where `data` ends before.
    """
    unused = 8 - num_bits
    # to the top of the byte and back, which repeats the sign
    fields = data[:, np.newaxis] << (unused - _shifts(num_bits))
    return fields.reshape(-1)[:size].view(np.int8) >> np.int8(unused)


def _shifts(num_bits: int) -> np.ndarray:
    """Returns by how many bits each level of a byte is shifted."""
    return np.arange(0, 8, num_bits, dtype=np.uint8)
