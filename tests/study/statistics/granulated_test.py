"""Granulated Kendall's coefficient by hand and by its equations."""

import itertools
import math

import numpy as np
import pytest

from qgen_tf.study.statistics.granulated import granulated
from qgen_tf.study.statistics.kendall import kendall
from qgen_tf.study.statistics.neighbours import neighbours
from tests.study.statistics.grids import grid


def _found(records, axes):
    return granulated(
        records["measure"].to_numpy(),
        records["gap"].to_numpy(),
        neighbours(records, axes),
    )


def test_a_hand_computed_grid():
    """Orders widths rightly, and depths at one width out of two."""
    records = grid(width=(8, 16), depth=(1, 2))
    records["gap"] = [1.0, 2.0, 3.0, 4.0]
    records["measure"] = [1.0, 2.0, 4.0, 3.0]
    found = _found(records, ["width", "depth"])
    assert found.axes == {"width": 1.0, "depth": 0.0}
    assert found.mean == 0.5


def test_it_is_that_of_the_equations():
    levels = {
        "width": (8, 16, 32),
        "depth": (1, 2, 3, 4),
        "dropout": (0.0, 0.5),
    }
    records = grid(seed=1, **levels)
    records["gap"] = records["gap"].round(1)  # with ties
    found = _found(records, list(levels))
    for axis in levels:
        others = [name for name in levels if name != axis]
        taus = []
        for values in itertools.product(*(levels[name] for name in others)):
            chosen = records
            for name, value in zip(others, values, strict=True):
                chosen = chosen[chosen[name] == value]
            taus.append(
                kendall(chosen["measure"], chosen["gap"], chosen.index).tau
            )
        assert len(taus) == 24 / len(levels[axis])
        assert found.axes[axis] == pytest.approx(np.mean(taus))
    assert found.mean == pytest.approx(np.mean(list(found.axes.values())))


def test_what_only_follows_one_hyperparameter_is_found_out():
    records = grid(width=(8, 16, 32), depth=(1, 2, 3))
    records["gap"] = 100.0 * records["depth"] + records["width"]
    records["measure"] = 1.0 * records["depth"]
    tau = kendall(records["measure"], records["gap"], records.index).tau
    found = _found(records, ["width", "depth"])
    assert tau == pytest.approx(0.75)
    assert found.axes == {"width": 0.0, "depth": 1.0}
    assert found.mean == 0.5


def test_repeats_are_compared_across_the_axis_only():
    records = grid(repeats=2, width=(8, 16))
    records["gap"] = [1.0, 5.0, 2.0, 6.0]
    records["measure"] = [1.0, 2.0, 3.0, 4.0]
    # 1-2, 1-6 and 5-6 agree, 5-2 does not
    assert _found(records, ["width"]).axes == {"width": 0.5}


def test_without_pairs_there_is_none():
    found = _found(grid(width=(8,)), ["width"])
    assert found.axes == {} and math.isnan(found.mean)
