"""The tables and figures of a report as Markdown, for a repository."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.figure
import pandas as pd

from qgen_tf.study.reporting import (
    figures,
    pages,
    report_runs,
    report_tables,
    report_views,
)
from qgen_tf.study.statistics.verdicts import Verdict
from qgen_tf.training import RunDirectory, atomic_path

FILE = "report.md"

_TABLES = {
    "headline": "Does the deployed file generalize as the trained model does?",
    "accuracy": "Accuracy [%] and its gap [points]",
    "loss": "Loss and its gap [nats]",
    "flatness": "Flatness",
    "ranking": "Which measure foretells the gap?",
    "verification": "Verification of the deployed files",
}
_FIGURES = {
    "gaps": "Generalization gap by bits",
    "changes": "What quantization changes, with 95 % intervals",
    "correlations": "Rank correlation of each measure with the gap",
    "distortions": "Gap to distorted test sets by severity",
}
_OF_RUNS = {
    "bin_widths": "Bin width of the weights, layer by layer",
    "noise_powers": "Power of the quantization noise of each layer",
    "landscape": "Loss around a float model and its twins",
}


def write(
    frame: pd.DataFrame,
    runs: Sequence[RunDirectory],
    folder: str | os.PathLike[str],
) -> pathlib.Path:
    """Writes `report.md` and, beside it, its figures as SVG.

    Args:
      frame: records.
      runs: their run directories; may be empty.
      folder: where both go; a `landscape.json` that is there is drawn.

    Returns:
      The path of `report.md`.

    Raises:
      UserError: nothing may be written there, or a run is damaged.
    """
    folder = pathlib.Path(folder)
    views = report_views.split(frame)
    names = ", ".join(sorted(frame["name"].unique()))
    lines = [f"# {_cell(names)}", ""]
    lines += _table("What was varied", report_tables.design(frame))
    for view in views:
        if len(views) > 1:
            lines += [f"# {view['title']}", ""]
        name = "" if len(views) == 1 else f"{view['title'].split()[-1]}_"
        lines += _view(view, folder, name)
    shown = report_runs.shown(frame, runs, folder, landscape=False)
    for key, title in _OF_RUNS.items():
        lines += _figures(title, shown[key], folder, key)
    with atomic_path(folder / FILE) as target:
        target.write_text("\n".join(lines), encoding="utf-8")
    return folder / FILE


def _view(
    view: dict[str, Any], folder: pathlib.Path, prefix: str
) -> Iterator[str]:
    """Gives the lines of a view; its figures have names with the prefix."""
    verdicts = [verdict for verdict, _ in view["verdicts"]]
    yield from _table("The claims of the paper", _claims(verdicts))
    recommended = _cell(view["recommended"].text)
    yield from ["## Which bits to choose", "", recommended, ""]
    for key, title in _TABLES.items():
        yield from _table(title, view[key])
    for heading, table in view["distorted"]:
        yield from _table(f"Gap to distorted test sets: {heading}", table)
    for key, title in _FIGURES.items():
        yield from _figures(title, view[key], folder, prefix + key)


def _claims(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = []
    for verdict in verdicts:
        part, evidence = verdict.decisive, verdict.decisive.evidence
        row = {
            "claim": f"{verdict.claim}. {verdict.sentence}",
            "verdict": f"**{verdict.verdict}**",
        }
        if evidence:
            row |= {
                "effect": f"{evidence.effect:+.3g} [{evidence.low:+.3g}, "
                f"{evidence.high:+.3g}] {evidence.unit}",
                "of": part.name.replace("_", " "),
                "float models": str(evidence.num_clusters),
            }
        rows.append({**row, "remark": verdict.reason})
    return pd.DataFrame(rows).fillna("")


def _table(title: str, table: pd.DataFrame | str) -> Iterator[str]:
    if not len(table):
        return
    yield from [f"## {title}", ""]
    if isinstance(table, str):
        yield from [_cell(table), ""]
        return
    numbers = table.select_dtypes("number").columns
    cells = table.map(_cell)
    known = cells.loc[:, (cells != "").any()]
    text = known.rename(columns=_cell).to_markdown(
        index=False,
        disable_numparse=True,
        colalign=[
            "right" if name in numbers else "left" for name in known.columns
        ],
    )
    yield from [text, ""]


def _cell(value: Any) -> str:
    """Returns the text of a cell; of markup, emphasis is all that is left."""
    text = " ".join(pages.text(value).split())
    return text.replace("|", "\\|").replace("<", "\\<")


def _figures(
    title: str,
    drawn: matplotlib.figure.Figure
    | Sequence[matplotlib.figure.Figure]
    | str
    | None,
    folder: pathlib.Path,
    name: str,
) -> Iterator[str]:
    """Writes figures, and gives the lines that show them."""
    if not drawn or isinstance(drawn, str):
        return
    several = [drawn] if isinstance(drawn, matplotlib.figure.Figure) else drawn
    yield from [f"## {title}", ""]
    for number, figure in enumerate(several):
        file = f"{name}_{number}.svg" if len(several) > 1 else f"{name}.svg"
        with atomic_path(folder / "figures" / file) as target:
            target.write_text(figures.svg(figure), encoding="utf-8")
        yield f"![{title}](figures/{file})"
    yield ""
