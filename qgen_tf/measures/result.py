"""What a measure returns."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class MeasureResult:
    """Value of a measure with what is needed to trust and repeat it.

    Attributes:
      name: key in `MEASURES`.
      value: the measure.
      unit: of the value and of its standard error.
      standard_error: Monte-Carlo error of the value; 0 where nothing is drawn.
      converged: whether a search met its tolerance; True if there was none.
      settings: every number and choice that the value depends on, for JSON.
      details: what was found on the way, for JSON, such as the accuracy
        without noise.
    """

    name: str
    value: float
    unit: str
    standard_error: float
    converged: bool
    settings: dict[str, Any]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
