"""Records: one row for each model, from run directories or from files."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from qgen_tf import errors
from qgen_tf.study import exporting, measuring, schema
from qgen_tf.study.distorting import CORRUPTIONS_FILE
from qgen_tf.study.record import optional, record
from qgen_tf.study.statistics import neighbours
from qgen_tf.training import RunDirectory, atomic_path, is_quantized

PARQUET_FILE = "records.parquet"
CSV_FILE = "records.csv"
NOISE_FILE = "noise.csv"
_NAMED = 5


def frame(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each run; see `record` and `schema`."""
    return schema.fit(pd.DataFrame([record(run) for run in runs]))


def noise(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each run and quantized layer; see `LayerNoise`.

    Columns `run` and `bits` are as those of records.
    """
    rows = []
    for run in runs:
        names = {"run": run.path.name, "bits": run.label}
        measured = run.read_json(measuring.MEASURES_FILE)
        rows += [names | layer for layer in measured["noise"]]
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
    path = run.path / measuring.QUANTIZATION_FILE
    try:
        return pd.read_csv(path).assign(run=run.path.name, bits=run.label)
    except (OSError, ValueError) as error:
        raise errors.RunDirectoryError(
            f"{path} cannot be read ({error}): delete "
            f"{measuring.MEASURES_FILE} beside it and measure the run again."
        ) from error


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
        if name not in ("", run.read_json(path.name)["name"]):
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
    if distorted := optional(run, CORRUPTIONS_FILE):
        verified = run.read_json(exporting.VERIFICATION_FILE)
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
    readers = {".parquet": _read_parquet, ".csv": _read_csv}
    if path.suffix not in readers:
        raise errors.DataError(
            f"{path} is no file of records: pass a .parquet or .csv file that "
            "qgen-report wrote, or a folder of run directories."
        )
    try:
        records = readers[path.suffix](path)
        _require_names(records)
    except (OSError, ValueError, pa.ArrowException, errors.DataError) as error:
        reason = " ".join(str(error).split())
        raise errors.DataError(f"{path} cannot be read: {reason}") from error
    return records


def _require_names(records: pd.DataFrame) -> None:
    """Raises a DataError unless each run is the name of a folder."""
    neighbours.require_columns(records, ["run"])
    for name in records["run"].fillna(""):
        if pathlib.PurePath(name).name != name or name in ("", ".."):
            raise errors.DataError(
                f"{name!r} is no name of a run: write the file again with "
                "qgen-report."
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
