"""The table of all benchmarks, in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import tabulate

from benchmarks import machine
from benchmarks.rows import Row

_DOCUMENT = """\
# Benchmarks

```
{command}
```

{introduction}

{table}
{missing}
## How each part was run

*Busy* is how many cores other programs kept busy just before the part began.

{parts}
"""

_INTRODUCTION = """\
measures what is below{quick}, on {machine}. Every number is a ratio within one
run, of contenders that take turns: the median over rounds, with the quartiles
in parentheses where there are rounds. {quiet}
"""

_QUIET = "Nothing else was running."
_NOT_QUIET = """\
Other programs were running: ratios of processor time hold nevertheless, those
of wall time may not.
"""
_MOST_BUSY = 0.3  # cores, on a quiet machine


def text(
    found: dict[str, dict[str, Any]], missing: Sequence[str], *, quick: bool
) -> str:
    """Returns the document.

    Args:
      found: for each part what `all.measure` returns.
      missing: parts that could not be measured.
      quick: whether it was a quick run.
    """
    is_quiet = all(part["busy"] <= _MOST_BUSY for part in found.values())
    introduction = _INTRODUCTION.format(
        quick=" with few rounds and small parts" if quick else "",
        machine=machine.description(),
        quiet=_QUIET if is_quiet else _NOT_QUIET,
    )
    rows = [
        Row.from_json(fields)
        for part in found.values()
        for fields in part["rows"]
    ]
    return _DOCUMENT.format(
        command="make bench" + (' ARGS="--quick"' if quick else ""),
        introduction=textwrap.fill(introduction, 80, break_on_hyphens=False),
        table=_table(
            ("what", "ratio", "measured", "goal", "reached"),
            [
                (row.what, row.ratio, row.spread.text(), row.goal, row.reached)
                for row in rows
            ],
        ),
        missing=f"\nNot measured: {', '.join(missing)}.\n" if missing else "",
        parts=_table(
            ("part", "command", "seconds", "busy"),
            [
                (
                    name,
                    f"`python -m {' '.join(part['command'])}`",
                    f"{part['seconds']:.0f}",
                    f"{part['busy']:.1f}",
                )
                for name, part in found.items()
            ],
        ),
    )


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate.tabulate(
        rows, headers, tablefmt="github", disable_numparse=True
    )
