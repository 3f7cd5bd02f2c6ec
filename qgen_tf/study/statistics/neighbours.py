"""Pairs of models that differ in one hyper-parameter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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
    with each of the other value.

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
    rows = [row for axis in axes for row in _along(records, axes, axis)]
    columns = ["axis", "others", "lower", "upper", "first", "second"]
    pairs = pd.DataFrame(rows, columns=columns)
    # of no rows pandas knows no type
    return pairs.astype({name: int for name in ("others", "first", "second")})


def _along(records: pd.DataFrame, axes: Sequence[str], axis: str) -> list:
    others = condition_codes(records, [name for name in axes if name != axis])
    rows = []
    for number, places in pd.Series(others).groupby(others).indices.items():
        values = records[axis].iloc[places]
        of_value = values.groupby(values).indices  # sorted; none of NaN
        for lower, upper in itertools.combinations(of_value, 2):
            rows += [
                (axis, number, lower, upper, *pair)
                for pair in itertools.product(
                    places[of_value[lower]], places[of_value[upper]]
                )
            ]
    return rows


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
