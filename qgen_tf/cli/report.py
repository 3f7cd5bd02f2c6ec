"""`qgen-report`: the table and the HTML report of finished runs."""

from __future__ import annotations

import os
import sys
import textwrap
import warnings

from absl import flags

from qgen_tf.cli import program

MANUAL = """\
Prints the table of all runs in a folder that are trained, measured and
exported, and writes into WORKDIR/NAME: report.html, records.parquet and
records.csv (a row for each model), noise.csv (for each quantized layer), and
hparams, for tensorboard --logdir. With --recommend it prints which bits to
choose, and writes nothing.

In place of --name it takes records: files that it wrote, maybe on several
machines, and folders of runs, which are put together.

Examples:
  qgen-report --workdir=runs --name=quickstart
  qgen-report --workdir=runs --name=quickstart --landscape
      with the loss around a float model and its twins, which takes minutes
  qgen-report --workdir=runs --name=quickstart --recommend
      the most accurate files at a gap no larger than float's, and how sure
      that is
  qgen-report --workdir=runs --name=quickstart --recommend --margin=1
      a gap that is larger by less than 1 point counts as no larger
  qgen-report --records=part1/records.parquet,part2/records.csv --output=all
  qgen-report --records=part1/records.parquet,runs --output=all
      with what only run directories say, of those in runs
"""

_WORKDIR = program.define_workdir()
_NAME = flags.DEFINE_string("name", None, "name of the config of the runs.")
_RECORDS = flags.DEFINE_list(
    "records",
    None,
    "files of records, .parquet or .csv, or folders of runs, instead of a "
    "name.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "folder to write to; with --records it is report if this is not given, "
    "else the folder NAME in --workdir.",
)
_LANDSCAPE = flags.DEFINE_bool(
    "landscape",
    False,
    "evaluates the loss around a float model and its twins for the report.",
)
_MARKDOWN = flags.DEFINE_bool(
    "markdown",
    False,
    "also writes report.md, with its figures, for a repository.",
)
_RECOMMEND = flags.DEFINE_bool(
    "recommend", False, "only says which bits to choose."
)
_MARGIN = flags.DEFINE_float(
    "margin",
    0.5,
    "of --recommend: by how much a larger gap still counts as no larger, in "
    "points.",
)


def _main() -> None:
    name = None if _RECORDS.value else program.require(_NAME)
    from qgen_tf.study import guidance, publishing, records

    if name is None:
        with warnings.catch_warnings(record=True) as told:
            frame, folder = records.load(_RECORDS.value), "report"
        for warning in told:
            print(warning.message, file=sys.stderr)
        folders = filter(os.path.isdir, _RECORDS.value)
        runs = [run for path in folders for run in records.find(path)]
    else:
        found = records.survey(_WORKDIR.value, name)
        if found.warning:
            print(found.warning, file=sys.stderr)
        frame, runs = records.frame(found.finished), found.finished
        folder = os.path.join(_WORKDIR.value, name)
    if _RECOMMEND.value:
        recommended = guidance.recommend(frame, margin=_MARGIN.value)
        print(recommended.readable.to_string(index=False))
        print(f"\n{textwrap.fill(recommended.text, 80)}")
    else:
        print(
            publishing.publish(
                frame,
                runs,
                _OUTPUT.value or folder,
                landscape=_LANDSCAPE.value,
                as_markdown=_MARKDOWN.value,
            )
        )


def main() -> None:
    """Runs the program."""
    program.run(
        _main,
        MANUAL,
        (
            _WORKDIR,
            _NAME,
            _RECORDS,
            _OUTPUT,
            _LANDSCAPE,
            _MARKDOWN,
            _RECOMMEND,
            _MARGIN,
        ),
    )


if __name__ == "__main__":
    main()
