"""The equations of Jiang et al. 2020 on how flat a minimum is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from qgen_tf import errors

_CHOICES = {
    "noise": ("gaussian", "worst_case"),
    "form": ("init", "orig", "flatness"),
    "orig_denominator": ("init", "zero"),
}


@dataclasses.dataclass(frozen=True)
class Equation:
    """One of the twelve; see `jiang.jiang2020` for them and their symbols.

    Attributes:
      noise: "gaussian" or "worst_case".
      form: "init", "orig" or "flatness".
      adaptive: whether it is magnitude-aware.
      orig_denominator: "init" or "zero".
      epsilon: above 0.
      delta: in (0, 1).
    """

    noise: str
    form: str
    adaptive: bool
    orig_denominator: str
    epsilon: float
    delta: float

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if (value := getattr(self, field)) not in choices:
                raise errors.ConfigError(
                    f"{field} {value!r} is not one of {choices}."
                )
        if not (0 < self.epsilon < math.inf and 0 < self.delta < 1):
            raise errors.ConfigError(
                "the measures of Jiang et al. need epsilon > 0 and delta in "
                f"(0, 1), not {self.epsilon} and {self.delta}."
            )

    @property
    def name(self) -> str:
        """Such as "pac_bayes_mag_init"."""
        family = "sharpness" if self.noise == "worst_case" else "pac_bayes"
        aware = "_mag" if self.adaptive else ""
        return f"{family}{aware}_{self.form}"

    @property
    def symbols(self) -> tuple[str, ...]:
        """What must be known: "alpha", "sigma" or both."""
        if self.noise == "gaussian":
            return ("sigma",)
        if self.form == "flatness":
            return ("alpha",)
        return ("alpha", "sigma")

    @property
    def needs_weights(self) -> bool:
        """Whether w is in it."""
        return self.form != "flatness"

    @property
    def needs_initial(self) -> bool:
        """Whether w0 is in it."""
        return self.form == "init" or (
            self.form == "orig"
            and self.adaptive
            and self.orig_denominator == "init"
        )

    def value(
        self,
        scales: dict[str, float],
        num_train: int,
        weights: Sequence[np.ndarray] = (),
        initial: Sequence[np.ndarray] = (),
    ) -> float:
        """Returns the value.

        Args:
          scales: sigma and alpha, as far as they are needed.
          num_train: m.
          weights: w, an array for each variable.
          initial: w0.
        """
        scale = scales[self.symbols[0]]
        if self.form == "flatness":
            return scale**-2
        offsets = weights
        if self.needs_initial:
            offsets = [
                w.astype(np.float64) - w0
                for w, w0 in zip(weights, initial, strict=True)
            ]
        vectors = offsets if self.form == "init" else weights
        n = sum(part.size for part in weights)
        square = sum(_sum(np.square, part) for part in vectors)
        complexity = math.log(num_train / scales["sigma"]) + 10
        is_worst = self.noise == "worst_case"
        if not self.adaptive:
            factor = math.log(2 * n) if is_worst else 1.0
            return factor * square / (4 * scale**2) + complexity
        width = 4 * math.log(2 * n / self.delta) if is_worst else 1.0
        a = self.epsilon**2 + (scale**2 + width) * square / n
        logs = sum(
            _sum(lambda w: np.log(self.epsilon**2 + (scale * w) ** 2), part)
            for part in offsets
        )
        return (n * math.log(a) - logs) / 4 + complexity


def _sum(
    function: Callable[[np.ndarray], np.ndarray], values: np.ndarray
) -> float:
    """Returns the sum of a function of the values, in float64."""
    return float(function(values.astype(np.float64)).sum())
