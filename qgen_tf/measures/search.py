"""The scale of a perturbation at which what it costs reaches a target."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

# Of neighbouring scales. Between two, a drop that grows like scale^p is off a
# straight line in log(scale) by at most p * 0.25 % of the scale.
_RATIO = 1.15


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where the drop reaches its target.

    Attributes:
      scale: found; a bound if the crossing lies beyond it.
      relative_error: standard error of log(scale); 0 at a bound, and if there
        is a single draw.
      hit_bound: "low" or "high" where the scale is a bound, else None.
      drop: at the scale; the target unless it is a bound.
      bracket: the scales it was interpolated between.
      num_draws: at each of these.
    """

    scale: float
    relative_error: float
    hit_bound: str | None
    drop: float
    bracket: tuple[float, float]
    num_draws: int


def find_crossing(
    drop: Callable[[float, int], float],
    *,
    target: float,
    bounds: tuple[float, float],
    num_scouts: int,
    num_draws: int,
    max_draws: int,
    relative_error: float,
    worst: bool = False,
) -> Crossing:
    """Finds the scale at which the mean drop over random draws is `target`.

    The scales are those of a geometric grid, and each draw is the same at all
    of them (common random numbers). A few draws bisect the grid. Then draws
    are added at the two scales around the target alone, which move on if the
    mean does, until the standard error is small enough.

    Args:
      drop: (scale, draw) to the drop; its mean over draws rises with scale.
      target: of the mean.
      bounds: smallest and largest scale, `0 < low < high`.
      num_scouts: draws that bisect, from 1 to `num_draws`.
      num_draws: draws at least.
      max_draws: draws at most.
      relative_error: standard error of log(scale) at which draws are enough.
      worst: whether the largest drop counts and not the mean. The standard
        error is then that of a single draw.
    """
    curve = _Curve(drop, target, bounds, worst)
    draws = num_scouts
    above = curve.bisected(draws)
    while True:
        above = curve.moved(above, draws)
        found = curve.crossing(above, draws)
        enough = found.relative_error <= relative_error or draws >= max_draws
        if draws >= num_draws and enough:
            return found
        wanted = float(num_draws)
        if draws >= num_draws:
            wanted = draws * (found.relative_error / relative_error) ** 2
        # a first estimate of the error may be far off: no more than double
        draws = min(
            max(draws + 1, math.ceil(min(wanted, 2 * draws))), max_draws
        )


class _Curve:
    """The drop on a grid of scales; each draw is evaluated once at each."""

    def __init__(
        self,
        drop: Callable[[float, int], float],
        target: float,
        bounds: tuple[float, float],
        worst: bool,
    ):
        num_steps = math.ceil(math.log(bounds[1] / bounds[0], _RATIO))
        self._scales = np.geomspace(*bounds, num_steps + 1).tolist()
        self._drop = functools.cache(drop)
        self._target = target
        self._worst = worst

    def bisected(self, draws: int) -> int:
        """Returns a step of the grid above the target, the one below not."""
        return bisect.bisect_left(
            range(len(self._scales)),
            True,
            key=lambda step: self._is_above(step, draws),
        )

    def moved(self, above: int, draws: int) -> int:
        """Returns the step near `above` of which that is true; see there."""
        while above < len(self._scales) and not self._is_above(above, draws):
            above += 1
        while above > 0 and self._is_above(above - 1, draws):
            above -= 1
        return above

    def crossing(self, above: int, draws: int) -> Crossing:
        """Interpolates, linearly in log(scale), below the step `above`.

        With d_j the drop of draw j at the crossing, the standard error of
        log(scale) is that of the mean of d_j over the slope of the mean.
        """
        last = len(self._scales) - 1
        if above in (0, last + 1):
            bound = min(above, last)
            scale = self._scales[bound]
            return Crossing(
                scale=scale,
                relative_error=0.0,
                hit_bound="high" if above else "low",
                drop=self._total(bound, draws),
                bracket=(scale, scale),
                num_draws=draws,
            )
        low, high = self._scales[above - 1 : above + 1]
        start, end = (self._total(step, draws) for step in (above - 1, above))
        share = (self._target - start) / (end - start)
        here = (1 - share) * self._drops(above - 1, draws)
        here += share * self._drops(above, draws)
        error = 0.0
        if draws > 1:
            error = float(np.std(here, ddof=1)) / (end - start)
            error *= math.log(high / low) / (1 if self._worst else draws**0.5)
        return Crossing(
            scale=low * (high / low) ** share,
            relative_error=error,
            hit_bound=None,
            drop=self._target,
            bracket=(low, high),
            num_draws=draws,
        )

    def _is_above(self, step: int, draws: int) -> bool:
        return self._total(step, draws) > self._target

    def _total(self, step: int, draws: int) -> float:
        drops = self._drops(step, draws)
        return float(drops.max() if self._worst else drops.mean())

    def _drops(self, step: int, draws: int) -> np.ndarray:
        scale = self._scales[step]
        return np.array([self._drop(scale, draw) for draw in range(draws)])
