"""Whether records can be of models, whoever has written them."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from qgen_tf import errors
from qgen_tf.quantization import FLOAT_BITS
from qgen_tf.study import schema

_BITS = ("weight_bits", "activation_bits")
_SHARES = ("accuracy", "agreement")  # end the names of shares in points


def require_values(frame: pd.DataFrame) -> None:
    """Raises unless every number of records is one that can be.

    Numbers are finite, or missing; counts are not negative; shares are 0 to
    100 points, and their differences no more than 200.

    Args:
      frame: of `schema.fit`.

    Raises:
      DataError: names the column, the run and the number.
    """
    for name in frame.select_dtypes("number"):
        low, high = _range(schema.describe(name))
        values = frame[name].to_numpy(np.float64)
        wrong = ~(np.isnan(values) | ((low <= values) & (values <= high)))
        if wrong.any():
            row = int(wrong.argmax())
            raise errors.DataError(
                f"column {name!r} of the records has {values[row]:g} in row "
                f"{row + 1}, which is not from {low:g} to {high:g}: mend it, "
                "or measure that run again."
            )


def require_columns(frame: pd.DataFrame) -> None:
    """Raises a DataError unless records have all columns of a finished run."""
    for column in schema.ALWAYS:
        if column.name in frame or column in schema.MODEL_ARGUMENTS:
            continue
        raise errors.DataError(
            f"the records have no column {column.name!r}, which reports show: "
            "write the file again with qgen-report."
        )
    if frame.empty:
        raise errors.DataError(
            "the records have no row: name a file with models."
        )


def _range(column: schema.Column) -> tuple[float, float]:
    """Returns the smallest and largest value of a column of numbers."""
    if column.name in _BITS:
        return 1, FLOAT_BITS
    if column.kind == schema.COUNT:
        return 0, np.iinfo(np.int64).max
    if column.unit == "points":
        return (0, 100) if column.name.endswith(_SHARES) else (-200, 200)
    return -sys.float_info.max, sys.float_info.max
