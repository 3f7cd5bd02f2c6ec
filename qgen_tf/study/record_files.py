"""Tables in files that somebody may have damaged, or made to harm."""

from __future__ import annotations

import csv
import pathlib
import reprlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from qgen_tf import errors
from qgen_tf.study import plausibility, schema
from qgen_tf.study.statistics import neighbours

_LONGEST_NAME = 200  # bytes: file systems take 255


def read(path: pathlib.Path) -> pd.DataFrame:
    """Returns the records of a `.parquet` or `.csv` file.

    Raises:
      DataError: the file is missing, damaged or not one of records.
    """
    readers = {".parquet": _read_parquet, ".csv": _read_csv}
    if path.suffix not in readers:
        raise errors.DataError(
            f"{path} is no file of records: pass a .parquet or .csv file that "
            "qgen-report wrote, or a folder of run directories."
        )
    try:
        records = readers[path.suffix](path)
        _require_names(records)
        plausibility.require_values(records)
    except errors.DataError as error:
        raise errors.DataError(f"{path} cannot be read: {error}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise errors.DataError(
            f"{path} cannot be read: {reason}; pass a file that qgen-report "
            "wrote."
        ) from error
    return records


def table(
    path: pathlib.Path, remedy: str, *, numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """Returns the table of a `.csv` file in a run directory.

    Args:
      path: of the file.
      remedy: what to do if it is damaged.
      numbers: columns that it must have, of finite numbers; if any are given,
        no others are read.

    Raises:
      RunDirectoryError: the file is missing or damaged.
    """
    try:
        found = pd.read_csv(path, usecols=[*numbers] or None)
        for name in numbers:
            if not np.isfinite(found[name].astype(np.float64)).all():
                raise ValueError(f"{name} is not finite")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise errors.RunDirectoryError(
            f"{path} cannot be read ({reason}): {remedy}."
        ) from error
    return found


def _require_names(records: pd.DataFrame) -> None:
    """Raises a DataError unless each run is the name of a folder."""
    neighbours.require_columns(records, ["run"])
    for name in records["run"].fillna(""):
        if (
            pathlib.PurePath(name).name != name
            or name in ("", "..")
            or not name.isprintable()
            or len(name.encode()) > _LONGEST_NAME
        ):
            raise errors.DataError(
                f"{reprlib.repr(name)} is no name of a run: write the file "
                "again with qgen-report."
            )


def _read_parquet(path: pathlib.Path) -> pd.DataFrame:
    table = pq.ParquetFile(path).read()
    return schema.fit(table.to_pandas(ignore_metadata=True))


def _read_csv(path: pathlib.Path) -> pd.DataFrame:
    """Unlike pandas, refuses rows that are cut short or too long."""
    with path.open(newline="", encoding="utf-8") as file:
        names = next(csv.reader(file), [])
    text = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return schema.parse(text.to_pandas())
