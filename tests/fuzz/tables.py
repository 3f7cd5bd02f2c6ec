"""Damaged files of records, as `qgen-report --records` reads them."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qgen_tf.study import (
    guidance,
    hparams,
    plausibility,
    records,
    tables,
)
from qgen_tf.study.reporting import report
from tests.fuzz import damage
from tests.study.reporting import report_records

STEPS = ("load", "recommend", "hparams", "report", "summary")
CHAINED = True
_SHOWN = 0.1


@functools.cache
def _originals() -> tuple[pd.DataFrame, dict[str, bytes]]:
    """Returns records of two float models, and the files of them."""
    with tempfile.TemporaryDirectory() as folder:
        records.write(report_records.records(num_floats=2), folder)
        files = {
            path.suffix: path.read_bytes()
            for path in pathlib.Path(folder).glob("records.*")
        }
        return records.load(pathlib.Path(folder) / "records.csv"), files


def make(generator: np.random.Generator) -> tuple[str, Any]:
    """Returns (what it is, what to try).

    That is suffix and content of a damaged file, and whether the whole report
    is written of it, where it can be read.
    """
    frame, files = _originals()
    # which takes seconds
    is_shown = generator.random() < _SHOWN
    suffix = damage.pick(generator, (".csv", ".parquet"))
    if generator.random() < 0.3:
        mutation = damage.pick(generator, damage.BYTES)
        content = mutation(generator, files[suffix])
        return f"{mutation.__name__} {suffix}", (suffix, content, is_shown)
    done = []
    for _ in range(generator.integers(1, 4)):
        frame, how = _changed(generator, frame)
        done.append(how)
    content = _content(frame, suffix)
    return f"{suffix}: {'; '.join(done)}", (suffix, content, is_shown)


def _changed(
    generator: np.random.Generator, frame: pd.DataFrame
) -> tuple[pd.DataFrame, str]:
    """Returns records with a cell, column or row that is not as it was."""
    column = damage.pick(generator, list(frame))
    row = int(generator.integers(len(frame)))
    kind = int(generator.integers(9))
    if kind == 0:
        return frame.drop(columns=column), f"no {column}"
    if kind == 1:
        return frame.drop(index=row).reset_index(drop=True), f"no row {row}"
    if kind == 2:
        again = frame.iloc[[row]].assign(**{column: frame[column].iloc[0]})
        frame = pd.concat([frame, again], ignore_index=True)
        return frame, f"row {row} twice with another {column}"
    if kind == 3:
        other = damage.pick(generator, list(frame))
        return frame.assign(**{column: frame[other]}), f"{column} is {other}"
    value = damage.wrong_value(generator, frame[column].iloc[row])
    if kind == 4:
        return frame.assign(**{column: [value] * len(frame)}), (
            f"{column} is {value!r:.200}"
        )
    if kind == 5:
        name = damage.pick(generator, ("", "a b", "corrupted_x_1_gap", "run"))
        return frame.assign(**{name: [value] * len(frame)}), f"new {name!r}"
    # a value of the same type, which is harder to refuse
    if kind == 6 and frame[column].dtype != object:
        value = damage.pick(
            generator,
            (np.nan, np.inf, -np.inf, 0, -1, 1e308, -1e308, 1e-308, 100, 32),
        )
    cells = frame[column].astype(object).copy()
    cells.iloc[row] = value
    return frame.assign(**{column: cells}), f"{column}[{row}] {value!r:.200}"


def _content(frame: pd.DataFrame, suffix: str) -> bytes:
    if suffix == ".csv":
        return frame.to_csv(index=False).encode(errors="surrogatepass")
    columns = {}
    for name in frame:
        values = [None if pd.isna(x) is True else x for x in frame[name]]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError):
            columns[name] = pa.array([str(x)[:99] for x in map(ascii, values)])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def trying() -> Iterator[Callable[[Any], dict[str, Callable[[], Any]]]]:
    """Gives what writes a file, and returns the steps that read it."""
    with tempfile.TemporaryDirectory(prefix="qgen-fuzz-") as folder:
        yield functools.partial(_steps, pathlib.Path(folder))


def _steps(
    folder: pathlib.Path, file: tuple[str, bytes, bool]
) -> dict[str, Callable[[], Any]]:
    suffix, content, is_shown = file
    path = folder / f"records{suffix}"
    path.write_bytes(content)
    known: dict[str, pd.DataFrame] = {}

    def load() -> None:
        known["frame"] = records.load(path)

    def write() -> None:
        plausibility.require_columns(known["frame"])
        if is_shown:
            report.write(known["frame"], [], folder)

    return {
        "load": load,
        "recommend": lambda: guidance.recommend(known["frame"]),
        "hparams": lambda: hparams.write(known["frame"], folder),
        "report": write,
        "summary": lambda: tables.summary_text(known["frame"]),
    }
