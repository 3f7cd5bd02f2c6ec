"""Records: one row for each model, from run directories or from files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import reprlib
import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from qgen_tf import errors
from qgen_tf.measures import LayerNoise
from qgen_tf.study import (
    exporting,
    measuring,
    plausibility,
    record_files,
    schema,
)
from qgen_tf.study.distorting import CORRUPTIONS_FILE
from qgen_tf.study.record import record
from qgen_tf.training import (
    RunDirectory,
    atomic_path,
    is_quantized,
    json_files,
)

PARQUET_FILE = "records.parquet"
CSV_FILE = "records.csv"
NOISE_FILE = "noise.csv"
_NAMED = 5


def frame(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each run; see `record` and `schema`.

    Raises:
      RunDirectoryError: a file of a run is missing or damaged.
    """
    rows = [record(run) for run in runs]
    try:
        return _fitted(rows)
    except errors.DataError:
        for run, row in zip(runs, rows, strict=True):
            _require_fit(run, row)
        raise


def _fitted(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns records with the types of the schema, and values that can be."""
    fitted = schema.fit(pd.DataFrame(rows))
    plausibility.require_values(fitted)
    return fitted


def _require_fit(run: RunDirectory, row: dict[str, Any]) -> None:
    """Raises an error that names the run unless its record fits the schema."""
    try:
        _fitted([row])
    except errors.DataError as error:
        raise errors.RunDirectoryError(
            f"a file of {run.path} is damaged ({str(error).split(':')[0]}): "
            "delete it and run the stage that writes it."
        ) from error


def noise(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each run and quantized layer; see `LayerNoise`.

    Columns `run` and `bits` are as those of records.

    Raises:
      RunDirectoryError: a file of a run is missing or damaged.
    """
    rows = []
    for run in runs:
        names = {"run": run.path.name, "bits": run.label}
        with run.reading(measuring.MEASURES_FILE) as measured:
            rows += [
                names | vars(json_files.result(LayerNoise, layer))
                for layer in measured["noise"]
            ]
    return pd.DataFrame(rows)


def quantization(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each quantized run and layer.

    The columns are those of `qgen_tf.quantization_report`, with `run` and
    `bits` as in records.

    Raises:
      RunDirectoryError: the table of a run is missing or damaged.
    """
    frames = [_quantization(run) for run in runs if is_quantized(run.config)]
    return pd.concat(frames) if frames else pd.DataFrame()


def _quantization(run: RunDirectory) -> pd.DataFrame:
    table = record_files.table(
        run.path / measuring.QUANTIZATION_FILE,
        f"delete {measuring.MEASURES_FILE} beside it and measure the run again",
    )
    return table.assign(run=run.path.name, bits=run.label)


@dataclasses.dataclass(frozen=True)
class Found:
    """Runs below a folder.

    Attributes:
      finished: those that went through every stage.
      unfinished: folder of each other to what it lacks.
    """

    finished: list[RunDirectory]
    unfinished: dict[str, str]

    @property
    def warning(self) -> str:
        """Names the unfinished runs; "" if there is none."""
        if not self.unfinished:
            return ""
        count = len(self.unfinished)
        named = [f"{run} ({why})" for run, why in self.unfinished.items()]
        more = f" and {count - _NAMED} more" * (count > _NAMED)
        return (
            f"{count} of {count + len(self.finished)} runs are not finished: "
            f"{', '.join(named[:_NAMED])}{more}."
        )


def survey(workdir: str | os.PathLike[str], name: str = "") -> Found:
    """Returns the runs below `workdir`, finished or not.

    Args:
      workdir: folder of run directories.
      name: of their config; "" takes all.

    Raises:
      RunDirectoryError: none is finished, or a file of one is damaged.
    """
    found = Found([], {})
    for path in sorted(pathlib.Path(workdir).glob("*/config.json")):
        run = RunDirectory(path.parent)
        with run.reading(path.name) as content:
            is_other = name not in ("", content["name"])
        if is_other:
            continue
        if lacks := _lacks(run):
            found.unfinished[run.path.name] = lacks
        else:
            found.finished.append(run)
    if not found.finished:
        raise errors.RunDirectoryError(
            f"{workdir} has no run{f' of {name!r}' if name else ''} that is "
            "trained, measured and exported: run qgen-sweep, or qgen-measure "
            "and qgen-export on each run."
        )
    return found


def find(workdir: str | os.PathLike[str], name: str = "") -> list[RunDirectory]:
    """Returns the finished runs of `survey`."""
    return survey(workdir, name).finished


def _lacks(run: RunDirectory) -> str:
    """Returns which stage is missing, "" if none is."""
    if not run.is_trained:
        return "not trained"
    if not (run.path / measuring.MEASURES_FILE).exists():
        return "not measured"
    if not exporting.is_readable(run.path):
        return "not verified"
    if (run.path / CORRUPTIONS_FILE).exists():
        with (
            run.reading(CORRUPTIONS_FILE) as distorted,
            run.reading(exporting.VERIFICATION_FILE) as verified,
        ):
            if distorted["sha256"] != verified["sha256"]:
                return "corrupted test sets are of another file"
    return ""


def write(
    frame: pd.DataFrame,
    folder: str | os.PathLike[str],
    runs: Sequence[RunDirectory] = (),
) -> None:
    """Writes records as Parquet and as CSV; each file appears whole.

    The fields of `records.parquet` have unit and meaning as metadata.

    Args:
      frame: records.
      folder: where `records.parquet` and `records.csv` go.
      runs: whose noise, layer by layer, is written to `noise.csv`.

    Raises:
      DataError: the records do not fit the schema.
      RunDirectoryError: nothing may be written there.
    """
    folder, fitted = pathlib.Path(folder), schema.fit(frame)
    with atomic_path(folder / PARQUET_FILE) as target:
        pq.write_table(schema.to_arrow(fitted), target)
    with atomic_path(folder / CSV_FILE) as target:
        fitted.to_csv(target, index=False)
    if runs:
        with atomic_path(folder / NOISE_FILE) as target:
            noise(runs).to_csv(target, index=False)


def load(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> pd.DataFrame:
    """Returns records: a row for each model, columns as in `schema`.

    Args:
      paths: a folder of run directories, of which the finished ones are
        taken, and a warning names the others; a `.parquet` or `.csv` file of
        records; or several of these: the parts of a study. Rows that are the
        same are taken once.

    Raises:
      DataError: a file is missing, damaged or not one of records, or parts
        differ in what they say of a run.
      RunDirectoryError: a folder has no finished run.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not isinstance(paths, Sequence) or not all(
        isinstance(path, (str, os.PathLike)) for path in paths
    ):
        raise errors.DataError(
            f"the records are {reprlib.repr(paths)}: pass the path of a file "
            "or a folder, or a list of paths."
        )
    parts = [_read(pathlib.Path(path)) for path in paths]
    if not parts:
        raise errors.DataError("there are no records: pass at least one path.")
    return _merged(schema.fit(pd.concat(parts)))


def _read(path: pathlib.Path) -> pd.DataFrame:
    if path.is_dir():
        found = survey(path)
        if found.warning:
            warnings.warn(found.warning, stacklevel=3)
        return frame(found.finished)
    return record_files.read(path)


def _merged(records: pd.DataFrame) -> pd.DataFrame:
    """Returns one row of each run."""
    merged = records.drop_duplicates(ignore_index=True)
    twice = merged["run"].duplicated(keep=False)
    if twice.any():
        name = merged.loc[twice, "run"].iloc[0]
        rows = merged[merged["run"] == name]
        column = rows.columns[rows.nunique(dropna=False) > 1][0]
        raise errors.DataError(
            f"the records have several rows of the run {name!r}, which differ "
            f"in {column!r}: keep one of them."
        )
    return merged
