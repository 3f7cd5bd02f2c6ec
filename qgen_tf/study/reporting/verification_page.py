"""One HTML page that shows a verification."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import pandas as pd

from qgen_tf.study import tables
from qgen_tf.study.reporting import figures, pages


def render(record: dict[str, Any]) -> str:
    """Returns the page of what `exporting.verify` found."""
    return pages.render(
        "verification.html",
        title=f"Does the file of {record['run']} generalize the same?",
        record=record,
        margin=record["equivalence"]["margin"],
        corruption=tables.corruption_text(record),
        gaps=pages.table(_gaps(record)),
        splits=pages.table(_splits(record)),
        plot=pages.plot(
            verification_figure(record),
            "Left: gaps with 95 % bootstrap intervals. Right: file minus "
            "model; thick is the 90 % interval of the test of equivalence, "
            "thin the 95 % paired bootstrap interval, shaded the margin.",
        ),
        text=tables.verification_text(record),
    )


def verification_figure(record: dict[str, Any]) -> matplotlib.figure.Figure:
    """Gaps of model and file in points, and their difference to the margin."""
    figure, (gaps, differences) = figures.panels(2)
    kinds = [name for name, _ in _kinds(record)]
    for position, (_, found) in enumerate(_kinds(record)):
        for shift, color, side in (
            (-0.1, "C0", "keras_gap"),
            (0.1, "C1", "tflite_gap"),
        ):
            _interval(
                gaps, position + shift, found[side]["accuracy"], color=color
            )
        paired = found["difference"]["accuracy"]
        _interval(differences, position, paired, color="C2")
        tested = {"value": paired["value"], **found["equivalence"]}
        _interval(differences, position, tested, color="C2", linewidth=4)
    margin = record["equivalence"]["margin"]
    differences.axhspan(-margin, margin, color="0.5", alpha=0.2, linewidth=0)
    gaps.set_ylabel("accuracy gap [points]")
    differences.set_ylabel("file minus model [points]")
    for label, color in (("trained model", "C0"), ("file", "C1")):
        gaps.plot([], [], "o", color=color, label=label)
    gaps.legend(**figures.LEGEND)
    for axis in (gaps, differences):
        axis.axhline(0.0, color="0.5", linewidth=0.8)
        axis.set_xticks(range(len(kinds)), kinds)
        axis.set_xlim(-0.5, len(kinds) - 0.5)
    return figure


def _interval(
    axis: Any,
    position: float,
    interval: dict[str, float],
    *,
    color: str,
    linewidth: float = 1.5,
) -> None:
    axis.vlines(
        position,
        interval["low"],
        interval["high"],
        color=color,
        linewidth=linewidth,
    )
    axis.plot(position, interval["value"], "o", color=color)


def _kinds(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Returns the test sets and what holds gaps to them."""
    kinds = [("test set", record)]
    if record["corrupted"]:
        kinds.append((tables.corruption_text(record), record["corrupted"]))
    return kinds


def _gaps(record: dict[str, Any]) -> pd.DataFrame:
    rows = []
    for kind, found in _kinds(record):
        for quantity, unit in (("accuracy", "points"), ("loss", "nats")):
            row = {"gap to": kind, "unit": unit}
            for heading, side in (
                ("trained model", "keras_gap"),
                ("file", "tflite_gap"),
                ("file minus model", "difference"),
            ):
                row[heading] = tables.interval_text(found[side][quantity])
            rows.append(row)
    return pd.DataFrame(rows)


def _splits(record: dict[str, Any]) -> pd.DataFrame:
    splits = [("training set", record["train"])]
    splits += [(name, found["test"]) for name, found in _kinds(record)]
    return pd.DataFrame(
        [
            {
                "on": name,
                "examples": agreement["num_examples"],
                "accuracy of the model [%]": agreement["trained_accuracy"],
                "of the file [%]": agreement["accuracy"],
                "same class [%]": agreement["argmax_agreement"],
                "equivalent": agreement["equivalence"]["equivalent"],
                "only the file is right": agreement["mcnemar"]["only_ours"],
                "only the model is right": agreement["mcnemar"]["only_theirs"],
                "McNemar p": agreement["mcnemar"]["p_value"],
                "max. steps to the model": agreement["max_steps"],
                "to the deployed network": agreement["max_steps_deployed"],
                "same class as it [%]": agreement["argmax_agreement_deployed"],
            }
            for name, agreement in splits
        ]
    )
