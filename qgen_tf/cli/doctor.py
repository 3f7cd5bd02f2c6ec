"""`qgen-doctor`: checks this machine."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import textwrap
from collections import Counter

from absl import flags

from qgen_tf.cli import checks, examination, program

MANUAL = """\
Checks whether this machine has what qgen_tf needs: Python and packages, Keras,
GPU, data sets, Ray, the runtime of exported files, a folder to write to. What
is wrong is said with how to mend it. Nothing is downloaded or installed.

  ok       is as it should be
  warning  not everybody needs it
  problem  prevents work

Exit status: 0 nothing prevents work, 2 something does.

Examples:
  qgen-doctor --workdir=/data/runs
      half a minute
  qgen-doctor --json
      for a machine to read
"""

_WORKDIR = program.define_workdir()
_JSON = flags.DEFINE_bool("json", False, "whether to write JSON.")

_PREVENTED = 2
_WIDTH = 79


def _main() -> None:
    asked = checks.checks(pathlib.Path(_WORKDIR.value))
    answers = examination.examine_all(asked.values())
    found = {}
    for name, finding in zip(asked, answers, strict=True):
        found[name] = finding
        if not _JSON.value:
            print(_text(name, finding), flush=True)
    counts = Counter(finding.status for finding in found.values())
    if _JSON.value:
        print(_json(found))
    else:
        print(f"\n{_summary(counts)}")
    sys.exit(_PREVENTED if counts[checks.PROBLEM] else 0)


def _text(name: str, finding: checks.Finding) -> str:
    return textwrap.fill(
        finding.text,
        _WIDTH,
        initial_indent=f"{finding.status:8} {name:13}",
        subsequent_indent=" " * 22,
        break_on_hyphens=False,
    )


def _json(found: dict[str, checks.Finding]) -> str:
    rows = [
        {"name": name, "status": finding.status, "text": finding.text}
        for name, finding in found.items()
    ]
    return json.dumps({"checks": rows}, indent=2)


def _summary(counts: Counter[str]) -> str:
    numbers = " and ".join(
        f"{counts[status]} {status}{'s' * (counts[status] > 1)}"
        for status in (checks.PROBLEM, checks.WARNING)
        if counts[status]
    )
    if counts[checks.PROBLEM]:
        return f"Mend what is wrong before you go on: {numbers}."
    return f"Nothing prevents work{': ' * bool(numbers)}{numbers}."


def main() -> None:
    """Runs the program."""
    # TensorFlow is one of the things to check: with this, only the processes
    # of the checks import it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    program.run(_main, MANUAL, (_WORKDIR, _JSON))


if __name__ == "__main__":
    main()
