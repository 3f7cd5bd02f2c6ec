"""Numbers over rounds, and the rows of the table that they end in."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Spread:
    """A number over rounds.

    Attributes:
      median: of the rounds.
      quartiles: the first and the third; None of a single round.
    """

    median: float
    quartiles: tuple[float, float] | None = None

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Spread:
        """Returns the spread of some numbers."""
        numbers = [float(number) for number in numbers]
        if len(numbers) == 1:
            return cls(numbers[0])
        first, median, third = statistics.quantiles(
            numbers, n=4, method="inclusive"
        )
        return cls(median, (first, third))

    @classmethod
    def of_ratios(
        cls, numbers: Sequence[float], others: Sequence[float]
    ) -> Spread:
        """Returns the spread of ratios, round by round."""
        return cls.of(
            number / other
            for number, other in zip(numbers, others, strict=True)
        )

    def text(self, digits: int = 2) -> str:
        """Returns the median and, in parentheses, the quartiles."""
        median = f"{self.median:.{digits}f}"
        if self.quartiles is None:
            return median
        first, third = (f"{number:.{digits}f}" for number in self.quartiles)
        return f"{median} ({first}–{third})"


@dataclasses.dataclass(frozen=True)
class Row:
    """A ratio, and what it should be.

    Attributes:
      what: was measured.
      ratio: of what to what.
      spread: of the ratio.
      at_most: the goal, if smaller is better.
      at_least: the goal, if larger is better.
    """

    what: str
    ratio: str
    spread: Spread
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        """What the ratio should be, in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:.3g}"
        if self.at_least is not None:
            return f"at least {self.at_least:.3g}"
        return "–"

    @property
    def reached(self) -> str:
        """Whether the median is what it should be, in words."""
        if self.at_most is not None:
            return "yes" if self.spread.median <= self.at_most else "no"
        if self.at_least is not None:
            return "yes" if self.spread.median >= self.at_least else "no"
        return "–"

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Row:
        """Returns what `dataclasses.asdict` took apart."""
        spread = fields["spread"]
        quartiles = spread["quartiles"]
        spread = Spread(
            spread["median"], tuple(quartiles) if quartiles else None
        )
        return cls(**{**fields, "spread": spread})

    def __str__(self) -> str:
        return (
            f"{self.what:44}{self.spread.text():>22}  {self.ratio}; "
            f"{self.goal}: {self.reached}"
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an action took.

    Attributes:
      wall: seconds.
      cpu: seconds of processor time, summed over threads.
    """

    wall: float
    cpu: float


def timed(action: Callable[[], Any]) -> Cost:
    """Returns what an action takes in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Writes a file in one piece, so that a kill leaves none or all of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)


def finish(output: str | None, rows: Sequence[Row], **details: Any) -> None:
    """Prints rows, and writes them with what else a benchmark found.

    Args:
      output: JSON file to write, if any.
      rows: of the table.
      **details: settings and whatever else is worth keeping.
    """
    print(*rows, sep="\n", flush=True)
    if output:
        content = [dataclasses.asdict(row) for row in rows]
        write_json(output, {**details, "rows": content})
