"""What a report shows of records: of all of them, or of each view.

A study may hold two kinds of models, which are not to be mixed: those that
were trained to one loss, and those that were trained for fixed epochs. Of the
first, some may have run out of epochs before: their training loss is higher,
and that alone makes a gap smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pandas as pd

from qgen_tf import errors
from qgen_tf.study import guidance, tables
from qgen_tf.study.reporting import figures, report_tables, study_figures
from qgen_tf.study.statistics import (
    claims,
    orientation,
    paired,
    ranking,
    verdicts,
)
from qgen_tf.study.statistics.evidence import Evidence

_GAPS = {"gap": "accuracy gap [points]", "loss_gap": "loss gap [nats]"}
_ACCURACIES = {
    "train_accuracy": "training accuracy [%]",
    "test_accuracy": "test accuracy [%]",
    "test_loss": "test loss [nats]",
}
_CHANGES = {
    "gap": "change of the gap [points]",
    "test_accuracy": "change of the test accuracy [points]",
}
_DRAWN = (*orientation.FLATNESS, "generalization_bound")
_ELSEWHERE = ("train_accuracy", "train_loss", "test_loss")
_RANKING = {
    "measure": "measure",
    "num_models": "models",
    "tau": "tau",
    "tau_low": "from",
    "tau_high": "to",
    "p_value": "p",
    "holm_p_value": "p, corrected",
    "psi": "psi, mean",
    "information": "information K",
    "sign_error_mean": "sign error, mean",
    "sign_error_90": "90th percentile",
    "sign_error_worst": "worst",
    "worst_environment": "in",
}
_PARTS = {
    "claim": "claim",
    "part": "part",
    "verdict": "verdict",
    "effect": "effect",
    "low": "from",
    "high": "to",
    "unit": "unit",
    "adjusted_p_value": "p, corrected",
    "num_clusters": "float models",
    "clusters_needed": "needed",
    "test": "test",
    "reason": "why undecided",
}
# of models times permutations times measures: some seconds
_PERMUTED = 20_000_000
_FEWEST_PERMUTATIONS = 199
_MOST_PERMUTATIONS = 999

_T = TypeVar("_T")


def split(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns what is shown of each view that has models; see `_shown`."""
    is_matched = frame["stop_at_loss"] > 0.0
    targets = sorted(frame["stop_at_loss"][is_matched].unique())
    losses = " or ".join(f"{target:g}" for target in targets)
    is_short = is_matched & frame["stopped_at_loss"].isna()
    # a twin is nothing without its float model
    is_short |= frame["twin_of"].isin(frame["run"][is_short])
    views = (
        (
            "At matched loss",
            f"trained until the training loss was down to {losses} nats",
            frame[is_matched & ~is_short],
        ),
        (
            "At matched loss or above",
            "trained in the same way, with those that ran out of epochs above "
            "that loss, which alone makes a gap smaller",
            frame[is_matched & is_short.any()],
        ),
        (
            "At fixed epochs",
            "trained for a fixed number of epochs, whatever the loss",
            frame[~is_matched],
        ),
    )
    return [
        {"title": title, "note": note, **_shown(rows.reset_index(drop=True))}
        for title, note, rows in views
        if len(rows)
    ]


def _shown(frame: pd.DataFrame) -> dict[str, Any]:
    """Returns verdicts, tables and figures; or why there are none."""
    num_float = frame[paired.CLUSTER].nunique()
    found = claims.all(frame)
    palette = figures.colors(frame)
    measures = report_tables.taken(frame)
    ranked = _if_possible(lambda: _ranking(frame, measures))
    # norms and the like are in the table only: they would be too many figures
    drawn = [name for name in measures if name in _DRAWN]
    rows = report_tables.distorted(frame)
    return {
        "num_models": len(frame),
        "num_float": num_float,
        "palette": {bits: palette[bits] for bits in figures.by_bits(frame)},
        "quantized": {
            bits: color for bits, color in palette.items() if bits != "float"
        },
        "headline": _headline(frame),
        "accuracy": report_tables.outcomes(frame, "accuracy"),
        "loss": report_tables.outcomes(frame, "loss"),
        "gaps": study_figures.outcomes(frame, _GAPS),
        "outcomes": study_figures.outcomes(frame, _ACCURACIES),
        "training_loss": study_figures.outcomes(
            frame, {"train_loss": "training loss [nats]"}
        ),
        "changes": (
            _if_possible(lambda: study_figures.changes(frame, _CHANGES))
            if num_float > 1
            else "What quantization changes from float model to float model "
            "cannot be told of one: train several."
        ),
        "flatness": report_tables.flatness(frame),
        "measures": study_figures.outcomes(
            frame,
            {name: name.replace("_", " ") for name in drawn},
            by_decades=True,
        ),
        "scatters": study_figures.scatters(frame, drawn),
        "ranking": ranked if isinstance(ranked, str) else _ranked(ranked),
        "correlations": (
            ""
            if isinstance(ranked, str)
            else study_figures.correlations(ranked)
        ),
        "distortions": study_figures.distortions(rows, palette),
        "distorted": [
            (
                heading,
                report_tables.distorted_by(rows, keys, figures.by_bits(frame)),
            )
            for heading, keys in (
                ("By severity, over all kinds", ["severity"]),
                ("By kind, over all severities", ["kind"]),
                ("By kind and severity", ["kind", "severity"]),
            )
            if len(rows)
        ],
        "verdicts": [(verdict, _gauge(verdict)) for verdict in found],
        "parts": report_tables.renamed(verdicts.parts_frame(found), _PARTS),
        "recommended": guidance.recommend(frame),
        "verification": report_tables.verification(frame),
    }


def _headline(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the summary; of many models, without what other tables have."""
    table = tables.summary(frame)
    if frame[paired.CLUSTER].nunique() == 1:
        return table
    return table.drop(columns=[tables.COLUMNS[name][0] for name in _ELSEWHERE])


def _if_possible(function: Callable[[], _T]) -> _T | str:
    """Returns what is found, or the sentence that says what is missing."""
    try:
        return function()
    except errors.DataError as error:
        return f"Not to be had of these records: {error}"


def _ranking(frame: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    permutations = _PERMUTED // max(len(frame) * len(measures), 1)
    tested = frame["num_test"].unique()
    return ranking.ranking(
        frame,
        measures=measures,
        num_test=int(tested[0]) if len(tested) == 1 else None,
        num_permutations=min(
            max(permutations, _FEWEST_PERMUTATIONS), _MOST_PERMUTATIONS
        ),
    )


def _ranked(ranked: pd.DataFrame) -> pd.DataFrame:
    axes = {
        name: f"psi, {name.removeprefix('psi_').replace('_', ' ')}"
        for name in ranked
        if name.startswith("psi_")
    }
    table = report_tables.renamed(ranked, _RANKING | axes)
    return table.assign(measure=table["measure"].str.replace("_", " "))


def _gauge(verdict: verdicts.Verdict) -> dict[str, float] | None:
    """Returns where effect, interval and claim are, in percent of a scale."""
    found: Evidence | None = verdict.decisive.evidence
    if found is None:
        return None
    low, high = found.claimed
    ends = [found.low, found.high, 0.0, *_finite(found.claimed)]
    start, span = min(ends), max(max(ends) - min(ends), 1e-12)

    def place(value: float) -> float:
        return min(max(10.0 + 80.0 * (value - start) / span, 0.0), 100.0)

    return {
        "zero": place(0.0),
        "effect": place(found.effect),
        "low": place(found.low),
        "length": place(found.high) - place(found.low),
        "claimed": place(low),
        "claimed_length": place(high) - place(low),
    }


def _finite(values: tuple[float, ...]) -> list[float]:
    return [value for value in values if abs(value) != float("inf")]
