"""Pairs of models that differ in one hyper-parameter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from qgen_tf import errors

# columns of records that a sweep may vary; the seed is a repetition
HYPERPARAMETERS = (
    "model",
    "width",
    "depth",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "dropout",
    "augmentation",
    "optimizer",
    "bits",
)

MOST_REPETITIONS = 2_000


def varied(records: pd.DataFrame) -> list[str]:
    """Returns the hyper-parameters that records have with several values."""
    return [
        name
        for name in HYPERPARAMETERS
        if name in records and records[name].nunique() > 1
    ]


def neighbours(records: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Returns the pairs of models that differ in exactly one hyper-parameter.

    Models that differ in their seed alone are repetitions, and each is paired
    with each of the other value. Of more pairs than `MOST_REPETITIONS` between
    two values at one setting so many are drawn.

    Args:
      records: a row for each model.
      axes: columns of the hyper-parameters.

    Returns:
      A row for each unordered pair: `axis`, the column in which they differ;
      `others`, a number for the setting of all other columns; `lower` and
      `upper`, the two values, in their order; `first` and `second`, the
      places of the rows of `records` that have them.

    Raises:
      DataError: a column is missing.
    """
    require_columns(records, axes)
    parts = [part for axis in axes for part in _along(records, axes, axis)]
    if not parts:
        columns = ["axis", "others", "lower", "upper", "first", "second"]
        return pd.DataFrame(columns=columns).astype(
            {name: int for name in ("others", "first", "second")}
        )
    return pd.concat(parts, ignore_index=True)


def _along(
    records: pd.DataFrame, axes: Sequence[str], axis: str
) -> Iterator[pd.DataFrame]:
    others = condition_codes(records, [name for name in axes if name != axis])
    for number, places in pd.Series(others).groupby(others).indices.items():
        values = records[axis].iloc[places]
        of_value = values.groupby(values).indices  # sorted; none of NaN
        for lower, upper in itertools.combinations(of_value, 2):
            first, second = _product(
                places[of_value[lower]], places[of_value[upper]]
            )
            yield pd.DataFrame(
                {
                    "axis": axis,
                    "others": number,
                    "lower": [lower] * len(first),  # of any type
                    "upper": [upper] * len(first),
                    "first": first,
                    "second": second,
                }
            )


def _product(
    lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of repetitions, or some that are drawn from them."""
    chosen = np.arange(len(lower) * len(upper))
    if len(chosen) > MOST_REPETITIONS:
        generator = np.random.default_rng(0)
        chosen = generator.choice(chosen, MOST_REPETITIONS, replace=False)
        chosen.sort()
    first, second = np.divmod(chosen, len(upper))
    return lower[first], upper[second]


def condition_codes(
    records: pd.DataFrame, columns: Sequence[str]
) -> np.ndarray:
    """Returns a number for each row: equal where all the columns are."""
    if not columns:
        return np.zeros(len(records), np.int64)
    return (
        records.groupby([*columns], sort=False, dropna=False)
        .ngroup()
        .to_numpy()
    )


def signs(values: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """Returns sign(value of the first - value of the second) of each pair."""
    return np.sign(
        values[pairs["first"].to_numpy()] - values[pairs["second"].to_numpy()]
    )


def require_columns(records: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises a DataError unless records have the columns."""
    if missing := [name for name in columns if name not in records]:
        raise errors.DataError(
            f"the records have no column {missing[0]!r}: run the stage that "
            "measures it, or leave it out."
        )
