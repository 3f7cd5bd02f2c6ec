"""Sign errors by hand, and as their published code forms environments."""

import itertools
import math

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.study.statistics.environments import noise_weight, sign_errors
from qgen_tf.study.statistics.neighbours import neighbours
from tests.study.statistics.grids import grid


def _found(records, axes, **settings):
    return sign_errors(
        records["measure"].to_numpy(),
        records["gap"].to_numpy(),
        neighbours(records, axes),
        **{"num_test": None, "least_sample_size": 1.0, **settings},
    )


def test_hand_computed_weights():
    # 2 exp(-2 * 10^4 * 0.01^2) = 2 / e^2
    weights = noise_weight(np.array([0.0, 0.02, -0.02, 1.0]), 10_000)
    wanted = (1.0 - 2.0 * math.exp(-2.0)) ** 2 - 0.5
    assert wanted == pytest.approx(0.0319, abs=1e-4)
    np.testing.assert_allclose(weights, [0.0, wanted, wanted, 0.5])
    # 1 - 2 exp(-0.5) is below 0, not to be squared
    assert noise_weight(np.array([0.01]), 10_000) == 0.0


def test_hand_computed_environments():
    records = grid(width=(8, 16), depth=(1, 2))
    records["gap"] = [1.0, 2.0, 3.0, 4.0]
    records["measure"] = [1.0, 1.0, 4.0, 3.0]
    found = _found(records, ["width", "depth"])
    errors_of = found.table.set_index("axis")["sign_error"]
    # widths: both right; depths: a tie and an error
    assert errors_of["width"] == 0.0
    assert errors_of["depth"] == (0.5 + 1.0) / 2
    assert found.mean == 0.375
    assert found.worst == 0.75
    assert found.worst_environment == "depth: 1 | 2"
    assert found.percentile_90 == pytest.approx(0.9 * 0.75)


def test_the_largest_error_of_one_setting_is_1():
    records = grid(width=(8, 16), depth=(1, 2))
    records["gap"] = [1.0, 2.0, 3.0, 4.0]
    records["measure"] = [1.0, 1.0, 4.0, 3.0]
    found = _found(records, ["width", "depth"], pooled=False)
    assert sorted(found.table["sign_error"]) == [0.0, 0.0, 0.5, 1.0]
    assert found.worst == 1.0


@pytest.mark.parametrize(("pooled", "least"), [(False, 5.0), (True, 10.0)])
def test_environments_are_those_of_brute_force(pooled, least):
    axes = ["width", "depth"]
    records = grid(seed=2, repeats=3, width=(8, 16, 32), depth=(1, 2))
    records["gap"] *= 3.0  # points
    num_test = 5_000
    sums = {}
    # over ordered pairs, as they are counted there, each environment twice
    for a, b in itertools.permutations(records.to_dict("records"), 2):
        differing = [name for name in axes if a[name] != b[name]]
        if len(differing) != 1:
            continue
        (axis,) = differing
        rest = tuple(a[name] for name in axes if name != axis)
        key = (axis, a[axis], b[axis], () if pooled else rest)
        failure = 2 * math.exp(
            -2 * num_test * (abs(a["gap"] - b["gap"]) / 100 / 2) ** 2
        )
        weight = max(0.0, max(0.0, 1 - failure) ** 2 - 0.5)
        agreement = np.sign(a["gap"] - b["gap"]) * np.sign(
            a["measure"] - b["measure"]
        )
        total = sums.setdefault(key, [0.0, 0.0, 0.0])
        total[0] += weight
        total[1] += weight**2
        total[2] += weight * (1 - agreement) / 2
    kept = {
        key: error / weight
        for key, (weight, square, error) in sums.items()
        if weight and weight**2 / square >= least
    }
    found = _found(
        records, axes, num_test=num_test, pooled=pooled, least_sample_size=least
    )
    assert 2 * len(found.table) == len(kept) < len(sums)
    twice = sorted([*found.table["sign_error"]] * 2)
    assert twice == pytest.approx(sorted(kept.values()))
    assert found.worst == pytest.approx(max(kept.values()))
    assert found.mean == pytest.approx(np.mean(list(kept.values())))
    assert found.percentile_90 == pytest.approx(
        np.percentile(found.table["sign_error"], 90)
    )


def test_sample_sizes_of_equal_weights_are_numbers_of_pairs():
    records = grid(repeats=3, width=(8, 16), depth=(1, 2))
    table = _found(records, ["width", "depth"]).table
    assert table["sample_size"].tolist() == [18.0, 18.0]
    none = _found(records, ["width", "depth"], least_sample_size=18.1)
    assert none.table.empty


def test_gaps_that_the_test_set_cannot_tell_apart_do_not_count():
    records = grid(width=(8, 16), depth=(1, 2))
    records["gap"] = [1.0, 1.1, 9.0, 9.1]
    records["measure"] = [1.0, 0.9, 3.0, 2.9]
    assert _found(records, ["width", "depth"]).worst == 1.0
    found = _found(records, ["width", "depth"], num_test=10_000)
    assert set(found.table["axis"]) == {"width"}
    assert found.worst == 0.0


def test_without_environments_there_is_no_error():
    found = _found(grid(width=(8,)), ["width"])
    assert math.isnan(found.mean) and math.isnan(found.worst)
    assert found.worst_environment == "" and found.table.empty


@pytest.mark.parametrize("least", [0.0, -1.0, math.nan])
def test_an_environment_needs_pairs(least):
    with pytest.raises(errors.ConfigError, match="least_sample_size"):
        _found(grid(width=(8, 16)), ["width"], least_sample_size=least)
