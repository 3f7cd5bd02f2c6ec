"""Records that no models could have."""

import numpy as np
import pandas as pd
import pytest

from qgen_tf import errors
from qgen_tf.study import plausibility, records, schema
from qgen_tf.study.reporting import report
from tests.study.reporting import report_records


def _records():
    return schema.fit(report_records.records(num_floats=1))


def test_records_of_models_pass():
    plausibility.require_values(_records())
    plausibility.require_columns(_records())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("test_accuracy", 100.5, "has 100.5 in row 3, which is not from 0 to"),
        ("file_train_accuracy", -1.0, "has -1 in row 3"),
        ("argmax_agreement", 101.0, "has 101 in row 3"),
        ("corrupted_fog_1_accuracy", 1e9, "has 1e\\+09 in row 3"),
        ("gap", np.inf, "has inf in row 3, which is not from -200 to 200"),
        ("train_loss", -np.inf, "has -inf in row 3"),
        ("num_test", -1, "has -1 in row 3, which is not from 0"),
        ("weight_bits", 0, "has 0 in row 3, which is not from 1 to 32"),
        ("activation_bits", 33, "has 33 in row 3"),
    ],
)
def test_a_value_that_cannot_be(tmp_path, column, value, message):
    frame = _records()
    frame.loc[2, column] = value
    message = f"^(?!.*\n).*column {column!r} .*{message}.*\\.$"
    with pytest.raises(errors.DataError, match=message):
        plausibility.require_values(frame)
    records.write(frame, tmp_path)
    for name in (records.PARQUET_FILE, records.CSV_FILE):
        with pytest.raises(errors.DataError, match=message):
            records.load(tmp_path / name)


@pytest.mark.parametrize("column", ["gap", "verdict", "num_test", "twin_of"])
def test_a_report_of_too_little(tmp_path, column):
    frame = _records().drop(columns=column)
    with pytest.raises(errors.DataError, match=f"no column {column!r}, which"):
        report.write(frame, [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_nothing(tmp_path):
    with pytest.raises(errors.DataError, match="the records have no row"):
        report.write(_records().head(0), [], tmp_path)


@pytest.mark.parametrize("given", [None, 3, [None], ["a.csv", 3], b"a.csv"])
def test_what_is_no_path_of_records(given):
    with pytest.raises(errors.DataError, match=r"pass the path of a file.*\.$"):
        records.load(given)


def test_no_records_are_a_frame():
    with pytest.raises(errors.DataError):
        plausibility.require_columns(pd.DataFrame())
