"""Correction of p-values for their number."""

from __future__ import annotations

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Returns p-values after Holm's correction for their number m.

    With p_(1) <= ... <= p_(m),

        adjusted p_(k) = max over j <= k of min(1, (m - j + 1) p_(j))

    The probability of any false rejection at a level is at most that level,
    however the tests depend on each other.

    Source: Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6 (1979).

    Args:
      p_values: [m].
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(
        1.0, np.maximum.accumulate(factors * p_values[order])
    )
    return adjusted
