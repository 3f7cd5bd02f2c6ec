"""One HTML file that shows a study, of one model or of thousands."""

from __future__ import annotations

import collections
import contextlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import pandas as pd

from qgen_tf.study import plausibility
from qgen_tf.study.reporting import (
    pages,
    report_runs,
    report_tables,
    report_views,
)
from qgen_tf.study.statistics import paired, verdicts
from qgen_tf.training import RunDirectory, atomic_path

FILE = "report.html"

# anchor to heading; the template of each is report_<anchor>.html
_SECTIONS = {
    "run": "What was run",
    "answer": "Does the deployed file generalize as the trained model does?",
    "claims": "The claims of the paper",
    "recommendation": "Which bits to choose",
    "gap": "Train, test and gap",
    "flatness": "Flatness",
    "ranking": "Which measure foretells the gap?",
    "distorted": "Distorted data",
    "bins": "Bin width and noise",
    "landscape": "Loss landscape",
    "training": "Training",
    "verification": "Verification of the deployed files",
    "repeat": "How to repeat it",
}
# where the heading is too long for a table of contents
_SHORT = {
    "answer": "File and model",
    "claims": "Claims",
    "ranking": "Ranking",
    "verification": "Verification",
}
_PACKAGES = (
    "qgen_tf",
    "tensorflow",
    "tf_keras",
    "ai-edge-litert",
    "numpy",
    "pandas",
)
_MOST_LISTED = 500  # models: a page with more rows gets slow


def write(
    frame: pd.DataFrame,
    runs: Sequence[RunDirectory],
    folder: str | os.PathLike[str],
    *,
    landscape: bool = False,
) -> pathlib.Path:
    """Writes `report.html`, which needs no other file and no network.

    Args:
      frame: records, a row for each model.
      runs: their run directories; without any, what the records lack is left
        out: bin widths, histories, landscapes.
      folder: where the file goes; a `landscape.json` that is there is drawn.
      landscape: evaluates the loss around a float model of the runs and its
        twins, which takes minutes, and keeps it in `landscape.json`.

    Returns:
      The path of the report.

    Raises:
      UserError: the file cannot be written, one of a run is damaged, or the
        records lack a column.
    """
    plausibility.require_columns(frame)
    path = pathlib.Path(folder) / FILE
    names = sorted(frame["name"].unique())
    design = report_tables.design(frame)
    views = report_views.split(frame)
    page = pages.render(
        "report.html",
        title=f"Generalization of {', '.join(names)}",
        sections=_SECTIONS,
        short=_SHORT,
        tiles=_tiles(frame, views),
        design=design,
        constants=report_tables.constants(frame),
        num_models=len(frame),
        num_float=frame[paired.CLUSTER].nunique(),
        views=views,
        margin=_alternatives(frame["margin"]),
        every_model=(
            report_tables.every_model(frame)
            if len(frame) <= _MOST_LISTED
            else None
        ),
        names=names,
        workdir=runs[0].path.parent.name if runs else "runs",
        versions=_versions(),
        runs=report_runs.shown(frame, runs, folder, landscape=landscape),
        plot=pages.plot,
        table=pages.table,
    )
    with atomic_path(path) as target:
        target.write_text(page, encoding="utf-8")
    return path


def _tiles(
    frame: pd.DataFrame, views: Sequence[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Returns the numbers that sum a study up, each with its meaning."""
    num_float = frame[paired.CLUSTER].nunique()
    same = int((frame["verdict"] == "same").sum())
    tiles = [
        (str(len(frame)), f"models, of which {num_float} float"),
        (
            f"{same} of {len(frame)}",
            "files shown to have the gap of their model",
        ),
    ]
    for view in views:
        where = f" {view['title'].lower()}" if len(views) > 1 else ""
        counts = collections.Counter(
            verdict.verdict for verdict, _ in view["verdicts"]
        )
        numbers = [
            str(counts[kind])
            for kind in (
                verdicts.SUPPORTED,
                verdicts.CONTRADICTED,
                verdicts.UNDECIDED,
            )
        ]
        tiles.append(
            (
                " / ".join(numbers),
                f"claims supported, contradicted, undecided{where}",
            )
        )
    choices = [view["recommended"].choice for view in views]
    if known := dict.fromkeys(choice for choice in choices if choice):
        tiles.append((" or ".join(known), "recommended bits"))
    return tiles


def _alternatives(values: pd.Series) -> str:
    """Returns the different values, such as "0.5 or 1"."""
    return " or ".join(f"{value:g}" for value in values.unique())


def _versions() -> dict[str, str]:
    """Returns the versions of what made the report."""
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        # a source tree that is not installed has no version
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
