"""`qgen-report`: the table and the HTML report of finished runs."""

from __future__ import annotations

from absl import flags

from qgen_tf.cli import program

MANUAL = """\
Prints the table of all runs in a folder that are trained, measured and
exported, and writes report.html, records.csv and noise.csv.

Examples:
  qgen-report --workdir=runs --name=quickstart
"""

_WORKDIR = program.define_workdir()
_NAME = flags.DEFINE_string("name", None, "name of the config of the runs.")


def _main() -> None:
    name = program.require(_NAME)
    from qgen_tf.study import records, report

    runs = records.find(_WORKDIR.value, name)
    print(report.write(runs, _WORKDIR.value))


def main() -> None:
    """Runs the program."""
    program.run(_main, MANUAL, (_WORKDIR, _NAME))


if __name__ == "__main__":
    main()
