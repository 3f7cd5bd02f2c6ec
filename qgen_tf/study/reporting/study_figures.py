"""Plots of the records of a study: one model or thousands."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pandas as pd
import scipy.stats

from qgen_tf.measures.generalization_gap import CONFIDENCE
from qgen_tf.study.reporting import figures
from qgen_tf.study.statistics import paired

SIDES = {"": "model", "file_": "file"}


def outcomes(
    frame: pd.DataFrame, columns: dict[str, str], *, by_decades: bool = False
) -> list[matplotlib.figure.Figure]:
    """Outcomes against bits, a panel for each.

    Each float model with its twins is a faint line; the mean over them is
    bold, with its standard error. A single one has the intervals of its own.

    Args:
      frame: records.
      columns: column, such as "gap", to the title of its panel.
      by_decades: makes the scale logarithmic where values span a decade.
    """
    drawn = []
    for column, title in columns.items():
        figure, axis = figures.panel(title)
        _of_clusters(axis, frame, column)
        if by_decades and figures.spans_a_decade(
            frame[column].dropna().to_numpy()
        ):
            axis.set_yscale("log")
        drawn.append(figure)
    return drawn


def _of_clusters(
    axis: matplotlib.axes.Axes, frame: pd.DataFrame, column: str
) -> None:
    labels = figures.by_bits(frame)
    palette = figures.colors(frame)
    values = frame.pivot_table(
        index=paired.CLUSTER, columns="bits", values=column
    ).reindex(columns=labels)
    places = np.arange(len(labels))
    if len(values) > 1:
        figures.faint_lines(
            axis,
            [
                np.column_stack([places, row])[np.isfinite(row)]
                for row in values.to_numpy()
            ],
        )
    means = values.mean().to_numpy()
    if len(values) > 1:
        errors = np.tile(values.sem().to_numpy(), (2, 1))
    else:
        errors = _own_intervals(frame, column, labels, means)
    axis.plot(places, means, color="black", linewidth=1.6)
    for place, label in enumerate(labels):
        axis.errorbar(
            place,
            means[place],
            errors[:, place : place + 1],
            fmt="o",
            capsize=3,
            color=palette[label],
            zorder=3,
        )
    _name(axis, labels)


def _own_intervals(
    frame: pd.DataFrame, column: str, labels: Sequence[str], means: np.ndarray
) -> np.ndarray:
    """Returns distances to the ends of the intervals of models, [2, bits].

    A measure has its standard error in the place of an interval.
    """
    by_label = frame.groupby("bits").first().reindex(labels)
    if f"{column}_low" in frame:
        ends = (
            means - by_label[f"{column}_low"],
            by_label[f"{column}_high"] - means,
        )
    elif f"{column}_standard_error" in frame:
        ends = (by_label[f"{column}_standard_error"],) * 2
    else:
        ends = (np.zeros(len(labels)),) * 2
    return np.maximum(np.array(ends, np.float64), 0.0)


def changes(
    frame: pd.DataFrame, columns: dict[str, str]
) -> list[matplotlib.figure.Figure]:
    """What quantization changes, a panel for each outcome.

    Quantized minus float model of the same cluster: the mean over clusters
    with its 95 % interval (Student's t), for models and for their files, the
    latter against the file of the float model.

    Args:
      frame: records of several float models and their twins.
      columns: column to the title of its panel.
    """
    labels = [label for label in figures.by_bits(frame) if label != "float"]
    palette = figures.colors(frame)
    drawn = []
    for column, title in columns.items():
        figure, axis = figures.panel(title)
        axis.axhline(0.0, color=figures.GREY, linewidth=0.8)
        for shift, prefix in ((-0.12, ""), (0.12, "file_")):
            pairs = paired.twins(frame, [f"{prefix}{column}"])
            change = (
                pairs[f"{prefix}{column}"] - pairs[f"float_{prefix}{column}"]
            )
            for place, label in enumerate(labels):
                found = change[pairs["bits"] == label].to_numpy(np.float64)
                axis.errorbar(
                    place + shift,
                    found.mean() if len(found) else np.nan,
                    _half(found),
                    fmt="s" if prefix else "o",
                    markerfacecolor="none" if prefix else None,
                    capsize=3,
                    color=palette[label],
                )
        for marker, face, name in (
            ("o", "black", "model"),
            ("s", "none", "file"),
        ):
            axis.plot(
                [], [], marker, color="black", markerfacecolor=face, label=name
            )
        axis.legend(frameon=False, fontsize="small")
        _name(axis, labels)
        drawn.append(figure)
    return drawn


def _half(values: np.ndarray) -> float:
    """Returns half the length of the interval of a mean."""
    if len(values) < 2:
        return 0.0
    reach = scipy.stats.t.isf((1.0 - CONFIDENCE) / 2.0, len(values) - 1)
    return float(reach * scipy.stats.sem(values))


def scatters(
    frame: pd.DataFrame, columns: Sequence[str], gap: str = "gap"
) -> list[matplotlib.figure.Figure]:
    """Gap against each measure, a point for each model.

    Args:
      frame: records.
      columns: of the measures; those without two numbers are left out.
      gap: its column.
    """
    palette = figures.colors(frame)
    drawn = []
    for column in columns:
        known = frame[np.isfinite(frame[[column, gap]]).all(axis=1)]
        if len(known) < 2:
            continue
        figure, axis = figures.panel(column.replace("_", " "))
        for bits, rows in known.groupby("bits", sort=False):
            axis.plot(
                rows[column],
                rows[gap],
                "o",
                markersize=2.5 if figures.are_many(len(known)) else 4.5,
                markeredgewidth=0,
                alpha=0.75,
                color=palette[bits],
                rasterized=figures.are_many(len(known)),
            )
        if figures.spans_a_decade(known[column].to_numpy()):
            axis.set_xscale("log")
        else:
            axis.locator_params(axis="x", nbins=5)
            axis.ticklabel_format(axis="x", scilimits=(-3, 4))
        axis.set_ylabel("gap [points]")
        drawn.append(figure)
    return drawn


def correlations(ranking: pd.DataFrame) -> matplotlib.figure.Figure:
    """Kendall's tau of each measure with the gap, with its interval.

    Args:
      ranking: of `ranking.ranking`.
    """
    table = ranking.sort_values("tau")
    figure, axis = figures.panel()
    figure.set_size_inches(7.0, 1.0 + 0.28 * len(table))
    places = np.arange(len(table))
    axis.axvline(0.0, color=figures.GREY, linewidth=0.8)
    axis.errorbar(
        table["tau"],
        places,
        xerr=np.maximum(
            [
                table["tau"] - table["tau_low"],
                table["tau_high"] - table["tau"],
            ],
            0.0,
        ),
        fmt="o",
        capsize=3,
        color=figures.ACCENT,
    )
    axis.set_yticks(places, table["measure"].str.replace("_", " "))
    axis.set_ylim(-0.7, len(table) - 0.3)
    axis.set_xlabel("Kendall's tau with the gap")
    return figure


def distortions(
    distorted: pd.DataFrame, palette: dict[str, str]
) -> list[matplotlib.figure.Figure]:
    """Gap to distorted test sets against severity, a panel for each kind.

    Means over models; full circles are models, open squares their files.

    Args:
      distorted: of `report_tables.distorted`.
      palette: of `figures.colors`.
    """
    drawn = []
    for kind, of_kind in distorted.groupby("kind", sort=False):
        figure, axis = figures.panel(str(kind).replace("_", " "))
        for bits, rows in of_kind.groupby("bits", sort=False):
            means = rows.groupby("severity")[["gap", "file_gap"]].mean()
            axis.plot(means.index, means["gap"], "o-", color=palette[bits])
            axis.plot(
                means.index,
                means["file_gap"],
                "s--",
                color=palette[bits],
                markerfacecolor="none",
                linewidth=0.8,
            )
        axis.set_xticks(sorted(of_kind["severity"].unique()))
        axis.set_xlabel("severity")
        axis.set_ylabel("gap [points]")
        drawn.append(figure)
    return drawn


def _name(axis: matplotlib.axes.Axes, labels: Sequence[str]) -> None:
    axis.set_xticks(np.arange(len(labels)), labels)
    axis.set_xlim(-0.4, len(labels) - 0.6)
    if len(labels) > 6:
        axis.tick_params(axis="x", labelrotation=60, labelsize="small")
