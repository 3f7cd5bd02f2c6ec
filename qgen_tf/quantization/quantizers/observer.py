"""What calibration has seen of a tensor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

_SAMPLE_A_BATCH = 4096


@dataclasses.dataclass
class Observer:
    """Statistics of the values that an activation quantizer has seen.

    Attributes:
      count: number of values.
      sum_abs: sum of their absolute values.
      minimum: smallest value.
      maximum: largest value.
      sample: evenly spaced values, some thousands of each batch.
    """

    count: int = 0
    sum_abs: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    sample: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.float32)
    )

    def update(self, values: np.ndarray) -> None:
        """Adds the values of a batch."""
        flat = values.reshape(-1)
        self.count += flat.size
        self.sum_abs += float(np.abs(flat).sum(dtype=np.float64))
        self.minimum = min(self.minimum, float(flat.min(initial=np.inf)))
        self.maximum = max(self.maximum, float(flat.max(initial=-np.inf)))
        stride = max(1, flat.size // _SAMPLE_A_BATCH)
        self.sample = np.concatenate([self.sample, flat[::stride]])

    @property
    def is_finite(self) -> bool:
        """Whether no value was NaN or infinite."""
        return math.isfinite(self.sum_abs)

    @property
    def mean_abs(self) -> float:
        """Mean absolute value."""
        return self.sum_abs / self.count

    @property
    def max_abs(self) -> float:
        """Largest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))
