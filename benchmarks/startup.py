"""How long imports and commands take until they can do something."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from absl import flags

from benchmarks.rows import Row, Spread, finish
from qgen_tf.cli import program
from qgen_tf.cli.qgen import COMMANDS

MANUAL = """\
Measures the processor time of fresh processes, in turns: those that import
qgen_tf over one that imports TensorFlow and tfmot, which it stands on; and
those that show the help of a command over one that imports TensorFlow alone,
and over one that does nothing.

Example:
  python -m benchmarks.startup --rounds=5 --output=startup.json
"""

_ROUNDS = flags.DEFINE_integer(
    "rounds", 5, "processes of each kind.", lower_bound=1
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_NOTHING, _TENSORFLOW = "nothing", "TensorFlow"
_STACK = "TensorFlow and tfmot"
_EVERYTHING = """
import qgen_tf
for name in qgen_tf.__all__:
    getattr(qgen_tf, name)
"""
_ALL_OF_EXPORT = _EVERYTHING.replace("qgen_tf", "export")
_IMPORTS = {
    "import qgen_tf": "import qgen_tf",
    "every public name of qgen_tf": _EVERYTHING,
    "every public name of export": _ALL_OF_EXPORT,
}
_PROCESSES = {
    _NOTHING: ["-c", "pass"],
    _TENSORFLOW: ["-c", "import tensorflow"],
    _STACK: ["-c", "import tensorflow, tensorflow_model_optimization"],
    **{what: ["-c", code] for what, code in _IMPORTS.items()},
    "qgen --help": ["-m", "qgen_tf.cli.qgen", "--help"],
    **{
        f"qgen-{name} --help": ["-m", f"qgen_tf.cli.{name}", "--help"]
        for name in COMMANDS
    },
}
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}


def _seconds(arguments: list[str]) -> float:
    """Returns the processor time of a process of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **_ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _rows(seconds: dict[str, list[float]]) -> list[Row]:
    def over(what: str, other: str, at_most: float | None = None) -> Row:
        return Row(
            what,
            f"processor time over that of {other}",
            Spread.of_ratios(seconds[what], seconds[other]),
            at_most,
        )

    commands = [what for what in seconds if what.endswith("--help")]
    return [
        *(over(what, _STACK, 1.1) for what in _IMPORTS),
        # a command that shows its help needs none of it
        *(over(what, _TENSORFLOW, 0.1) for what in commands),
        *(over(what, _NOTHING) for what in commands),
    ]


def _main() -> None:
    seconds: dict[str, list[float]] = {what: [] for what in _PROCESSES}
    _seconds(_PROCESSES[_STACK])  # fills the cache of files
    for round_ in range(_ROUNDS.value):
        turns = list(_PROCESSES.items())
        for what, arguments in turns if round_ % 2 else turns[::-1]:
            seconds[what].append(_seconds(arguments))
    finish(_OUTPUT.value, _rows(seconds), rounds=_ROUNDS.value, seconds=seconds)


if __name__ == "__main__":
    # with this, only the processes that are measured import TensorFlow
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    program.run(_main, MANUAL, (_ROUNDS, _OUTPUT))
