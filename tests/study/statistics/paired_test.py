"""Twins and clusters on records that can be read at a glance."""

import numpy as np
import pandas as pd
import pytest

from qgen_tf.study.statistics import paired


@pytest.fixture
def records():
    return pd.DataFrame(
        {
            "twin_of": ["a", "a", "a", "b", "b", "c", "d"],
            "weight_bits": [32, 8, 2, 32, 4, 8, 32],
            "activation_bits": [32, 8, 8, 32, 32, 8, 32],
            "gap": [10.0, 9.0, 6.0, 20.0, 21.0, 1.0, 5.0],
        }
    )


def test_twins_have_their_own_float_model(records):
    pairs = paired.twins(records, ["gap"])
    assert pairs["twin_of"].tolist() == ["a", "a", "b"]
    assert pairs["gap"].tolist() == [9.0, 6.0, 21.0]
    assert pairs["float_gap"].tolist() == [10.0, 10.0, 20.0]


def test_a_cluster_counts_once(records):
    pairs = paired.twins(records, ["gap"])
    found = paired.cluster_means(pairs, pairs["gap"] - pairs["float_gap"])
    assert found.tolist() == [-2.5, 1.0]


def test_several_float_models_are_averaged(records):
    again = records.iloc[[0]].assign(gap=14.0)
    pairs = paired.twins(pd.concat([records, again]), ["gap"])
    assert pairs["float_gap"].tolist() == [12.0, 12.0, 20.0]


def test_slopes_are_those_of_least_squares(records):
    known = records.assign(halvings=paired.halvings(records))
    assert known["halvings"].tolist() == [0.0, 2.0, 4.0, 0.0, 3.0, 2.0, 0.0]
    found = paired.slopes(known, "halvings", "gap")
    assert found.index.tolist() == ["a", "b"]
    wanted = np.polyfit([0.0, 2.0, 4.0], [10.0, 9.0, 6.0], 1)[0]
    assert found["a"] == pytest.approx(wanted) == pytest.approx(-1.0)
    assert found["b"] == pytest.approx(1 / 3)


def test_float_models_are_float_in_weights_and_activations(records):
    assert paired.is_float(records).tolist() == [
        True,
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_rows_without_a_number_or_a_cluster_are_left_out(records):
    records.loc[0, "gap"] = np.nan
    records.loc[1, "gap"] = np.inf
    records.loc[3, "twin_of"] = None
    found = paired.finite(records, ["gap"])
    assert found.index.tolist() == [2, 4, 5, 6]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda r: paired.finite(r, ["loss"]), "no column 'loss'"),
        (lambda r: paired.finite(r.assign(gap=np.nan), ["gap"]), "no model"),
        (lambda r: paired.twins(r.iloc[[5, 6]], ["gap"]), "no quantized model"),
        (
            lambda r: paired.slopes(r.iloc[[5, 6]], "weight_bits", "gap"),
            "different weight_bits",
        ),
    ],
)
def test_what_is_missing_is_said(records, function, message):
    with pytest.raises(paired.MissingError, match=message):
        function(records)
