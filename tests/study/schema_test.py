"""Columns of records: what each is, and which frames fit."""

import inspect

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from qgen_tf import errors, measures, models
from qgen_tf.study import schema
from qgen_tf.study.statistics.neighbours import HYPERPARAMETERS
from tests.study.reporting import report_records
from tests.study.statistics import simulated_records


def test_every_measure_is_described():
    assert list(schema.MEASURES) == list(measures.MEASURES)
    for name in measures.MEASURES:
        for suffix in ("", "_standard_error"):
            column = schema.describe(f"{name}{suffix}")
            assert column.kind == schema.NUMBER and column.unit
        assert schema.describe(f"{name}_converged").kind == schema.FLAG


def test_every_argument_of_a_model_is_described():
    found = {}
    for build in models.MODELS.values():
        for parameter in inspect.signature(build).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and isinstance(
                parameter.default, (int, float, str)
            ):
                is_text = isinstance(parameter.default, str)
                found[parameter.name] = (
                    schema.TEXT if is_text else schema.NUMBER
                )
    described = {column.name: column.kind for column in schema.MODEL_ARGUMENTS}
    assert described == found


def test_every_hyperparameter_is_described():
    assert set(HYPERPARAMETERS) <= schema.COLUMNS.keys()


def test_no_name_is_there_twice():
    for name, column in schema.COLUMNS.items():
        assert column.name == name
        assert column.meaning and column.kind in schema.DTYPES


@pytest.mark.parametrize(
    ("name", "unit", "meaning"),
    [
        (
            "corrupted_gaussian_noise_3_accuracy",
            "points",
            "trained model, test with gaussian_noise of severity 3",
        ),
        (
            "corrupted_fog_1_loss",
            "nats",
            "trained model, test with fog of severity 1",
        ),
        (
            "file_corrupted_fog_5_gap",
            "points",
            "deployed file, train minus test with fog of severity 5",
        ),
        (
            "file_corrupted_fog_5_loss_gap",
            "nats",
            "deployed file, train minus test with fog of severity 5",
        ),
    ],
)
def test_corrupted_test_sets_are_described(name, unit, meaning):
    column = schema.describe(name)
    assert (column.name, column.kind) == (name, schema.NUMBER)
    assert (column.unit, column.meaning) == (unit, meaning)


@pytest.mark.parametrize(
    "name",
    [
        "beauty",
        "corrupted_fog_6_gap",
        "corrupted_fog_gap",
        "xcorrupted_a_1_gap",
    ],
)
def test_an_unknown_column_is_named(name):
    with pytest.raises(errors.DataError, match=f"no column '{name}'"):
        schema.fit(pd.DataFrame({"run": ["a"], name: [1.0]}))


def test_types_are_those_of_the_schema():
    frame = schema.fit(
        pd.DataFrame(
            {
                "seconds_train": [1, 2],
                "corrupted_fog_1_gap": [None, 1.5],
                "pac_bayes_sigma_converged": [True, None],
                "gap": [3, 4],
                "seed": [0.0, 7.0],
                "quantizer": [None, "lsq"],
                "run": ["a", "b"],
            },
            index=[5, 9],
        )
    )
    assert list(frame) == [
        *("run", "seed", "quantizer", "gap", "pac_bayes_sigma_converged"),
        *("corrupted_fog_1_gap", "seconds_train"),
    ]
    assert list(frame.index) == [0, 1]
    assert frame["seed"].dtype == np.int64 and list(frame["seed"]) == [0, 7]
    assert frame["gap"].dtype == np.float64
    assert frame["pac_bayes_sigma_converged"].dtype == pd.BooleanDtype()
    assert frame["quantizer"].isna().tolist() == [True, False]
    assert frame["corrupted_fog_1_gap"].isna().tolist() == [True, False]
    pd.testing.assert_frame_equal(schema.fit(frame), frame)


def test_records_of_models_that_nobody_trained_fit():
    for frame in (simulated_records.records(), report_records.records()):
        fitted = schema.fit(frame)
        assert set(fitted) == set(frame) and len(fitted) == len(frame)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("gap", ["large"], "'gap' of the records must hold numbers, but str"),
        ("gap", [True], "must hold numbers, but boolean is found"),
        ("run", [3], "'run' of the records must hold text, but integer"),
        ("seed", [1.5], "'seed' .* whole numbers, but a value is not whole"),
        ("seed", [None], "whole numbers, but a value is missing"),
        ("seed", [np.inf], "a value is not whole"),
        ("seed", [1e300], "'seed' .* must hold whole numbers, but .* large"),
        ("pac_bayes_sigma_converged", [2.0], "must hold flags, but floating"),
    ],
)
def test_a_wrong_type_is_named(column, values, message):
    with pytest.raises(errors.DataError, match=message):
        schema.fit(pd.DataFrame({column: values}))


def test_a_column_that_is_there_twice_is_named():
    frame = pd.DataFrame([[1.0, 2.0]], columns=["gap", "gap"])
    with pytest.raises(errors.DataError, match="two columns 'gap'"):
        schema.fit(frame)


def test_text_is_read_as_what_it_stands_for():
    frame = schema.parse(
        pd.DataFrame(
            {
                "run": ["1", "None"],
                "gap": ["0.1", None],
                "seed": ["3", "-4"],
                "pac_bayes_sigma_converged": ["False", None],
            },
            dtype=object,
        )
    )
    expected = pd.DataFrame(
        {
            "run": ["1", "None"],
            "seed": [3, -4],
            "gap": [0.1, None],
            "pac_bayes_sigma_converged": [False, None],
        }
    )
    pd.testing.assert_frame_equal(frame, schema.fit(expected))


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("gap", "wide"),
        ("seed", "1.5"),
        ("seed", "99999999999999999999"),
        ("pac_bayes_sigma_converged", "maybe"),
    ],
)
def test_text_that_cannot_be_read_is_named(column, text):
    with pytest.raises(errors.DataError, match=f"column '{column}'"):
        schema.parse(pd.DataFrame({column: [text]}, dtype=object))


def test_arrow_fields_have_unit_and_meaning():
    frame = schema.fit(pd.DataFrame({"latency_ms": [0.5], "run": ["a"]}))
    table = schema.to_arrow(frame)
    assert table.schema.field("run").type == pa.string()
    assert table.schema.field("latency_ms").metadata == {
        b"unit": b"ms",
        b"meaning": b"median for an image, one thread",
    }
