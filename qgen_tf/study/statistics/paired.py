"""Float models and their quantized twins: one number for each cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from qgen_tf import errors
from qgen_tf.quantization import FLOAT_BITS

CLUSTER = "twin_of"


class MissingError(errors.DataError):
    """Records lack the columns or the models that a test needs."""


def finite(records: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Returns the rows of a known cluster in which all columns are finite.

    Raises:
      MissingError: a column is missing or there is no such row.
    """
    require(records, [CLUSTER, *columns])
    numbers = records[[*columns]].astype(np.float64)
    kept = np.isfinite(numbers).all(axis=1) & records[CLUSTER].notna()
    if not kept.any():
        raise MissingError(
            f"no model of the records has a number for each of {[*columns]}: "
            "run the stage that measures them."
        )
    return records[kept]


def require(records: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises a MissingError unless records have the columns."""
    if missing := [name for name in columns if name not in records]:
        raise MissingError(
            f"the records have no column {missing[0]!r}: run the stage that "
            "measures it."
        )


def is_float(records: pd.DataFrame) -> pd.Series:
    """Returns whether each model is float."""
    return (records["weight_bits"] == FLOAT_BITS) & (
        records["activation_bits"] == FLOAT_BITS
    )


def twins(records: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Returns the quantized models with what their float model has.

    Args:
      records: a row for each model.
      columns: those of interest.

    Returns:
      The rows of quantized models, and `float_<column>` of the float model of
      their cluster for each column (the mean, should there be several).

    Raises:
      MissingError: a column is missing, or no quantized model has a float
        twin.
    """
    known = finite(records, [*columns, "weight_bits", "activation_bits"])
    float_rows = is_float(known)
    of_float = (
        known[float_rows]
        .groupby(CLUSTER)[[*columns]]
        .mean()
        .add_prefix("float_")
    )
    pairs = known[~float_rows].join(of_float, on=CLUSTER, how="inner")
    if pairs.empty:
        raise MissingError(
            "no quantized model of the records has a float twin with the same "
            f"{CLUSTER} and a number for each of {[*columns]}: train twins."
        )
    return pairs


def cluster_means(pairs: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """Returns the mean of the values of each cluster."""
    return values.groupby(pairs[CLUSTER]).mean().to_numpy(np.float64)


def slopes(records: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Returns the least-squares slope of y against x within each cluster.

    sum of (x - mean x) y / sum of (x - mean x)^2 over the models of a cluster;
    clusters in which x does not vary have none.

    Args:
      records: a row for each model; the columns are finite.
      x: column.
      y: column.

    Raises:
      MissingError: x varies within no cluster.
    """
    centered = records[x] - records.groupby(CLUSTER)[x].transform("mean")
    sums = (
        pd.DataFrame(
            {
                CLUSTER: records[CLUSTER],
                "product": centered * records[y],
                "square": centered**2,
            }
        )
        .groupby(CLUSTER)
        .sum()
    )
    sums = sums[sums["square"] > 1e-12]
    if sums.empty:
        raise MissingError(
            f"no float model of the records has twins of different {x}: train "
            "twins of several bits."
        )
    return sums["product"] / sums["square"]


def halvings(records: pd.DataFrame) -> pd.Series:
    """Returns how often 32 bits were halved to those of the weights."""
    return math.log2(FLOAT_BITS) - np.log2(
        records["weight_bits"].astype(np.float64)
    )
