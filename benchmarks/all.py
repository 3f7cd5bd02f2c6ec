"""Runs the benchmarks, and writes one table of them."""

from __future__ import annotations

import os
import pathlib
import sys

from absl import flags

from benchmarks import document, parts
from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Runs every benchmark, one after the other, and writes one table of ratios, each
with its spread over rounds, its goal and whether it is reached. What a part
found is kept in a folder, so that a run that was killed goes on where it
stopped; remove the folder to measure anew. A part whose command has changed is
run again.

The peers QKeras and Brevitas have rows where a Python that has them is given;
see the help of benchmarks.qat_overhead for how to install them.

Examples:
  python -m benchmarks.all --quick
      a few minutes, few rounds
  python -m benchmarks.all --output=docs/benchmarks.md
      25 minutes on two cores with nothing else running
  python -m benchmarks.all --parts=startup,norms

Exit status: 0 all parts were measured, 1 some could not be.
"""

_QUICK = flags.DEFINE_boolean("quick", False, "smaller parts, fewer rounds.")
_FOLDER = flags.DEFINE_string(
    "folder", "runs/benchmarks", "of what the parts found; kept."
)
_OUTPUT = flags.DEFINE_string("output", None, "Markdown file to write.")
_PARTS = flags.DEFINE_list("parts", [], "names of parts; all if empty.")
_QKERAS_PYTHON = flags.DEFINE_string(
    "qkeras_python", None, "a Python that has QKeras."
)
_BREVITAS_PYTHON = flags.DEFINE_string(
    "brevitas_python", None, "a Python that has Brevitas."
)


def commands() -> dict[str, list[str]]:
    """Returns the arguments of Python for each part that is asked for."""
    names = _PARTS.value or list(parts.COMMANDS)
    if unknown := sorted(set(names) - set(parts.COMMANDS)):
        raise errors.ConfigError(
            f"--parts has {unknown}: choose from {list(parts.COMMANDS)}."
        )
    chosen = {name: list(parts.COMMANDS[name][_QUICK.value]) for name in names}
    if "qat_overhead" in chosen:
        contenders = ["w4a4", "w8a8", "tfmot"]
        for peer, python in (
            ("qkeras", _QKERAS_PYTHON.value),
            ("brevitas", _BREVITAS_PYTHON.value),
        ):
            if python:
                contenders.append(peer)
                chosen["qat_overhead"].append(f"--{peer}_python={python}")
        chosen["qat_overhead"].append(f"--contenders={','.join(contenders)}")
    return chosen


def _main() -> None:
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        name: parts.measure(name, command, folder)
        for name, command in commands().items()
    }
    missing = [name for name, part in found.items() if part is None]
    text = document.text(
        {name: part for name, part in found.items() if part},
        missing,
        quick=_QUICK.value,
    )
    print(f"\n{text}")
    if _OUTPUT.value:
        pathlib.Path(_OUTPUT.value).write_text(text)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    # with this, only the processes of the parts import TensorFlow
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    program.run(
        _main,
        MANUAL,
        (
            *(_QUICK, _FOLDER, _OUTPUT, _PARTS),
            *(_QKERAS_PYTHON, _BREVITAS_PYTHON),
        ),
    )
