"""All that is written of a study, in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd

from qgen_tf.study import hparams, records, tables
from qgen_tf.study.reporting import markdown, report
from qgen_tf.training import RunDirectory


def publish(
    frame: pd.DataFrame,
    runs: Sequence[RunDirectory],
    folder: str | os.PathLike[str],
    *,
    landscape: bool = False,
    as_markdown: bool = False,
) -> str:
    """Writes records, TensorBoard's HParams and the report of a study.

    Args:
      frame: records.
      runs: their run directories, for what records do not have; may be empty.
      folder: where `records.parquet`, `records.csv`, `noise.csv` (of runs),
        `hparams` and `report.html` go.
      landscape: whether to evaluate the loss around a float model and its
        twins; see `report.write`.
      as_markdown: whether to write `report.md` and `figures/`, too.

    Returns:
      The main table, and below it the path of the report.

    Raises:
      UserError: the records do not fit the schema, a run is damaged, or
        nothing may be written there.
    """
    records.write(frame, folder, runs)
    hparams.write(frame, folder)
    path = report.write(frame, runs, folder, landscape=landscape)
    if as_markdown:
        markdown.write(frame, runs, folder)
    return f"{tables.summary_text(frame)}\n\n{path}"
