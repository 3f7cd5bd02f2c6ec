"""Pairs of models that differ in one hyper-parameter."""

import itertools

import numpy as np
import pandas as pd
import pytest

from qgen_tf import errors
from qgen_tf.study.statistics.neighbours import (
    MOST_REPETITIONS,
    condition_codes,
    neighbours,
    signs,
    varied,
)
from tests.study.statistics.grids import grid

AXES = ["width", "depth", "optimizer"]


@pytest.fixture
def records():
    frame = grid(
        repeats=2, width=(8, 16, 32), depth=(1, 2), optimizer=("sgd", "adamw")
    )
    return frame.sample(frac=0.8, random_state=0)


def test_pairs_are_those_of_brute_force(records):
    wanted = set()
    rows = records[AXES].to_numpy()
    for i, j in itertools.combinations(range(len(rows)), 2):
        differing = [k for k in range(3) if rows[i][k] != rows[j][k]]
        if len(differing) == 1:
            wanted.add((AXES[differing[0]], frozenset((i, j))))
    pairs = neighbours(records, AXES)
    found = [
        (row.axis, frozenset((row.first, row.second)))
        for row in pairs.itertuples()
    ]
    assert len(found) == len(set(found)) == len(wanted) > 20
    assert set(found) == wanted
    for row in pairs.itertuples():
        values = records[row.axis].to_numpy()
        assert values[row.first] == row.lower < row.upper == values[row.second]


def test_others_number_the_settings_that_are_held_fixed(records):
    pairs = neighbours(records, AXES)
    for axis, rows in pairs.groupby("axis"):
        others = [name for name in AXES if name != axis]
        settings = records[others].iloc[rows["first"]].apply(tuple, axis=1)
        assert len(set(settings)) == rows["others"].nunique()
        matched = set(zip(settings, rows["others"], strict=True))
        assert len(matched) == len(set(settings))


def test_a_value_that_is_unknown_has_no_neighbour():
    records = grid(width=(8.0, np.nan), depth=(1, 2))
    pairs = neighbours(records, ["width", "depth"])
    assert set(pairs["axis"]) == {"depth"}
    assert len(pairs) == 2


def test_hyperparameters_are_those_that_vary():
    records = grid(width=(8, 16), depth=(2,)).assign(run=["a", "b"])
    assert varied(records) == ["width"]


def test_signs_of_pairs():
    pairs = neighbours(grid(width=(8, 16, 32)), ["width"])
    np.testing.assert_array_equal(
        signs(np.array([1.0, 3.0, 3.0]), pairs), [-1, -1, 0]
    )


def test_without_conditions_all_are_alike():
    assert set(condition_codes(grid(width=(8, 16)), [])) == {0}


def test_a_missing_column_is_named():
    with pytest.raises(errors.DataError, match="no column 'depth'"):
        neighbours(grid(width=(8, 16)), ["width", "depth"])


def test_of_many_repetitions_pairs_are_drawn():
    records = pd.DataFrame({"depth": [2] * 70 + [3] * 80})
    pairs = neighbours(records, ["depth"])
    assert len(pairs) == MOST_REPETITIONS < 70 * 80
    assert not pairs.duplicated(["first", "second"]).any()
    assert set(pairs["first"]) == set(range(70))
    assert set(pairs["second"]) == set(range(70, 150))
    pd.testing.assert_frame_equal(pairs, neighbours(records, ["depth"]))
