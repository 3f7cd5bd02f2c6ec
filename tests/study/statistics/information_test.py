"""Conditional mutual information by hand and by its definition."""

import collections
import itertools
import math

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.study.statistics.information import conditional_information
from tests.study.statistics.grids import grid

AXES = ["width", "depth"]


def _found(records, axes=AXES, **settings):
    return conditional_information(records, "measure", "gap", axes, **settings)


def _brute_force(records, chosen):
    """I(V_mu, V_g | U_S) / H(V_g | U_S), summed as it is printed."""
    counts = collections.Counter()
    for a, b in itertools.permutations(records.to_dict("records"), 2):
        order = np.sign(a["gap"] - b["gap"])
        if order:
            setting = tuple((a[name], b[name]) for name in chosen)
            told = np.sign(a["measure"] - b["measure"])
            counts[setting, told, order] += 1
    total = sum(counts.values())
    joint = {key: count / total for key, count in counts.items()}

    def marginal(*places):
        sums = collections.Counter()
        for key, share in joint.items():
            sums[tuple(key[place] for place in places)] += share
        return sums

    setting, told, order = marginal(0), marginal(0, 1), marginal(0, 2)
    information = sum(
        p * math.log(p * setting[u,] / (told[u, m] * order[u, v]))
        for (u, m, v), p in joint.items()
    )
    entropy = -sum(p * math.log(p / setting[u,]) for (u, _), p in order.items())
    return information, entropy


@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_its_definition(seed):
    records = grid(seed, repeats=2, width=(8, 16, 32), depth=(1, 2))
    for column in ("gap", "measure"):
        records[column] = (2.0 * records[column]).round()  # with ties
    found = _found(records)
    assert set(found.by_conditions) == {(), ("width",), ("depth",), tuple(AXES)}
    for chosen, value in found.by_conditions.items():
        information, entropy = _brute_force(records, chosen)
        assert value == pytest.approx(information / entropy, abs=1e-12)
    assert found.value == min(found.by_conditions.values())
    assert found.by_conditions[found.conditions] == found.value
    assert 0.0 < found.value < 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_oracle_tells_everything(sign):
    records = grid(repeats=3, width=(8, 16), depth=(1, 2))
    records["measure"] = sign * records["gap"] ** 3
    found = _found(records)
    for value in found.by_conditions.values():
        assert value == pytest.approx(1.0)


def test_a_hyperparameter_in_disguise_tells_nothing():
    records = grid(repeats=3, width=(8, 16, 32), depth=(1, 2))
    records["gap"] += 2.0 * records["depth"]
    records["measure"] = 1.0 * records["depth"]
    found = _found(records)
    assert found.by_conditions[()] > 0.1
    assert found.by_conditions["depth",] == pytest.approx(0.0, abs=1e-12)
    assert found.value == pytest.approx(0.0, abs=1e-12)


def test_a_hand_computed_value():
    """Orders 2 of 3 pairs rightly: 1 - H(1/3) / log 2."""
    records = grid(width=(8, 16, 32))
    records["gap"] = [1.0, 2.0, 3.0]
    records["measure"] = [1.0, 3.0, 2.0]
    wrong = 1 / 3
    left = -wrong * math.log(wrong) - (1 - wrong) * math.log(1 - wrong)
    found = _found(records, [])
    assert found.value == pytest.approx(1.0 - left / math.log(2.0))
    assert found.conditions == ()


def test_conditions_that_tell_all_gaps_are_left_out():
    records = grid(width=(8, 16, 32))
    records["gap"] = 1.0 * records["width"]
    found = _found(records, ["width"])
    assert set(found.by_conditions) == {()}
    equal = _found(records.assign(gap=1.0), ["width"])
    assert math.isnan(equal.value) and equal.by_conditions == {}


def test_sets_are_no_larger_than_asked():
    records = grid(repeats=2, width=(8, 16), depth=(1, 2), dropout=(0.0, 0.5))
    axes = [*AXES, "dropout"]
    sizes = collections.Counter(
        len(chosen) for chosen in _found(records, axes).by_conditions
    )
    assert sizes == {0: 1, 1: 3, 2: 3}
    assert set(_found(records, axes, most_conditions=0).by_conditions) == {()}


def test_of_many_models_some_are_drawn():
    records = grid(repeats=30, width=(8, 16))
    few = _found(records, ["width"], most_models=20)
    assert few == _found(records, ["width"], most_models=20)
    assert few != _found(records, ["width"], most_models=20, seed=1)
    assert few != _found(records, ["width"])


def test_a_missing_column_is_named():
    with pytest.raises(errors.DataError, match="no column 'depth'"):
        _found(grid(width=(8, 16)))
