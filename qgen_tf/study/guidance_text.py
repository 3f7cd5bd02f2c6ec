"""A recommendation of bits, in words and as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

# of a gap, against float's
QUALIFIES, LARGER, CANNOT_TELL = "no larger", "larger", "cannot tell"

_LONE = (
    "This is of one float model and its twins: the intervals are those of the "
    "examples, and another seed may do otherwise. Train at least two float "
    "models, better ten."
)


def decided(
    table: pd.DataFrame,
    choice: str,
    tied: Sequence[str],
    *,
    margin: float,
    confidence: float,
) -> str:
    """Returns why some bits are chosen.

    Args:
      table: see `guidance.Recommendation`.
      choice: the bits that are chosen.
      tied: those whose accuracy cannot be told from theirs.
      margin: in points.
      confidence: of the intervals.
    """
    rows = table.set_index("bits")
    chosen, of_float = rows.loc[choice], rows.loc["float"]
    number = len(rows) - 1
    sentences = [
        f"Choose {choice}.",
        f"Over {_models(chosen)}, its files are right on "
        f"{chosen['accuracy']:.2f} % of the test examples, "
        f"{_change(chosen, 'accuracy')} points from float's files "
        f"({100.0 * confidence:g} % interval).",
        f"Their gap is {_change(chosen, 'gap')} points from float's: no larger "
        f"than that, within {margin:g} points (p = {chosen['p_value']:.2g}"
        f"{f', corrected for {number} choices of bits' * (number > 1)}).",
        _costs(chosen, of_float),
    ]
    if tied:
        sentences.append(
            f"The accuracy of {' and '.join(tied)} cannot be told from that; "
            "the size of the file, then its latency, then the accuracy decided."
        )
    others = rows.drop(["float", choice, *tied])
    sentences += [_against(row) for _, row in others.reset_index().iterrows()]
    return _joined(sentences, table)


def undecided(table: pd.DataFrame, margin: float) -> str:
    """Returns why no bits are chosen, and what it would take.

    Args:
      table: see `guidance.Recommendation`.
      margin: in points.
    """
    return _joined(
        [
            "No bits can be recommended: of none is it shown that the gap is "
            f"no larger than float's, within {margin:g} points.",
            *(_against(row) for _, row in table.iloc[1:].iterrows()),
        ],
        table,
    )


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with headings and rounded numbers, as text."""
    rows = [
        {
            "bits": row["bits"],
            "float models": str(row["models"]),
            "test acc. of file [%]": f"{row['accuracy']:.2f}",
            "minus float's [points]": _change(row, "accuracy"),
            "gap minus float's [points]": _change(row, "gap"),
            "gap": row["verdict"] if isinstance(row["verdict"], str) else "",
            "p": _text(row["p_value"], ".2g"),
            "models needed": _text(row["models_needed"], "d"),
            "file [kB]": _text(row["kilobytes"], ".1f"),
            "latency [ms]": _text(row["latency_ms"], ".3g"),
        }
        for _, row in table.iterrows()
    ]
    return pd.DataFrame(rows)


def _joined(sentences: Sequence[str], table: pd.DataFrame) -> str:
    lone = _LONE if table["models"].max() == 1 else ""
    return " ".join(filter(None, [*sentences, *_selections(table), lone]))


def _selections(table: pd.DataFrame) -> list[str]:
    """Returns which bits are known of a part of the float models only."""
    most = table["models"].max()
    return [
        f"Of the {most} float models only {row['models']} have a twin of "
        f"{row['bits']} here, and what is said of {row['bits']} is of these."
        for _, row in table.iterrows()
        if row["models"] < most
    ]


def _against(row: pd.Series) -> str:
    """Returns what stands against the choice of a row."""
    found = (
        f"{row['bits']}: the gap is {_change(row, 'gap')} points from float's"
    )
    if row["verdict"] == QUALIFIES:
        return (
            f"{found}, but the accuracy of its files is only "
            f"{row['accuracy']:.2f} %."
        )
    if row["verdict"] == LARGER:
        return f"{found}, which is larger."
    needed = row["models_needed"]
    if pd.isna(needed):
        return f"{found}, which {_models(row)} cannot tell."
    return (
        f"{found}; were it as found, {needed} float models with their twins "
        f"would tell, but this is of {row['models']}."
    )


def _costs(chosen: pd.Series, of_float: pd.Series) -> str:
    costs = [
        f"{verb} {_text(chosen[name], digits)} {unit} instead of "
        f"{_text(of_float[name], digits)} {unit}{what}"
        for name, verb, digits, unit, what in (
            ("kilobytes", "has", ".1f", "kB", ""),
            ("latency_ms", "takes", ".3g", "ms", " for an image"),
        )
        if not math.isnan(chosen[name])
    ]
    return f"A file {' and '.join(costs)}." if costs else ""


def _models(row: pd.Series) -> str:
    return f"{row['models']} float model{'' if row['models'] == 1 else 's'}"


def _change(row: pd.Series, name: str) -> str:
    value, low, high = (
        row[f"{name}_difference{end}"] for end in ("", "_low", "_high")
    )
    return "" if pd.isna(value) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _text(value: float, digits: str) -> str:
    return "" if pd.isna(value) else format(value, digits)
