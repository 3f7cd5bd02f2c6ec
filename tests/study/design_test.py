"""Which models a study has."""

import pytest

from qgen_tf import errors, training
from qgen_tf.study import design
from tests import tiny


def _config(axes=(), twins=((4, 8),), **sweep):
    config = tiny.config()
    config.twins = twins
    config.sweep.axes = axes
    config.sweep.update(sweep)
    return config


def test_trials_are_the_float_model_and_its_twins(tmp_path):
    trials = design.trials(_config(twins=((8, 8), (2, 8))), tmp_path)
    assert [training.label(one.config) for one in trials] == [
        *("float", "w8a8", "w2a8")
    ]
    parent = trials[0]
    assert parent.parent is None
    for one in trials:
        assert one.path == training.run_path(tmp_path, one.config)
        assert one.config.seed == parent.config.seed
    assert {one.parent for one in trials[1:]} == {parent.path}


def test_axes_give_all_combinations_each_with_its_twins(tmp_path):
    axes = (
        ("training.learning_rate", (1e-3, 1e-2, 3e-2)),
        ("seed", (4, 7)),
    )
    trials = design.trials(_config(axes), tmp_path)
    assert len(trials) == 12
    assert len({one.path for one in trials}) == 12
    floats = [one for one in trials if one.parent is None]
    assert {
        (one.config.training.learning_rate, one.config.seed) for one in floats
    } == {(rate, seed) for rate in axes[0][1] for seed in axes[1][1]}
    for parent, twin in zip(trials[::2], trials[1::2], strict=True):
        assert twin.parent == parent.path
        assert twin.config.training == parent.config.training


def test_parts_are_of_the_same_order(tmp_path):
    axes = (("seed", tuple(range(20))),)

    def seeds(**sweep):
        config = _config(axes, twins=(), **sweep)
        return [one.config.seed for one in design.trials(config, tmp_path)]

    every = seeds()
    assert sorted(every) == list(range(20)) and every != sorted(every)
    assert seeds(num_combinations=5) == every[:5]
    assert seeds(num_combinations=5, first=7) == every[7:12]
    assert seeds(first=5) == every[5:]
    assert sorted(seeds(seed=1)) == sorted(every)
    assert seeds(seed=1) != every


@pytest.mark.parametrize(
    "twins", [((8,),), (("8", "8"),), ((8, 8, 8),), (8, 8), ("w4",)]
)
def test_twins_must_be_pairs_of_numbers(twins, tmp_path):
    with pytest.raises(errors.ConfigError, match="write pairs"):
        design.trials(_config(twins=twins), tmp_path)


@pytest.mark.parametrize(
    "axis",
    [
        "seed",
        ("seed",),
        ("seed", ()),
        ("seed", 3),
        ("training.rate", (1.0,)),
        ("seed", ("one",)),
        ("model.name", "nin"),
        (("seed",), (1,)),
    ],
)
def test_axes_must_be_fields_and_values(axis, tmp_path):
    with pytest.raises(errors.ConfigError, match=r"sweep\.axes has .*write"):
        design.trials(_config((axis,)), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"twins": ((8, 8), (9, 8))}, "weight_bits is 9"),
        ({"twins": ((8, 8), (8, 8))}, "twice"),
        ({"axes": (("seed", (1, 1)),)}, "twice"),
        ({"axes": (("training.epochs", (1, 0)),)}, "training.epochs is 0"),
        ({"axes": (("seed", (1,)),), "num_combinations": 2}, "there are 1"),
        ({"num_combinations": -1}, "num_combinations is -1: write a whole"),
        ({"first": -1}, "sweep.first is -1: write a whole number"),
        ({"first": 1}, "there are 1"),
        ({"axes": (("seed", (-1,)),)}, "seed is -1: write a whole number"),
        (
            {"axes": (("seed", tuple(range(50_001))), ("model.depth", (1, 2)))},
            "100002 combinations, of at most 100000",
        ),
    ],
)
def test_a_design_that_cannot_be_run_is_refused(changes, message, tmp_path):
    with pytest.raises(errors.ConfigError, match=message):
        design.trials(_config(**changes), tmp_path)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("measures", {"names": ("beauty",)}, "'beauty' is unknown"),
        ("corruptions", {"kinds": ("rain",)}, "rain"),
    ],
)
def test_stages_are_checked_before_the_first_one(
    section, values, message, tmp_path
):
    config = _config()
    config[section].update(values)
    with pytest.raises(errors.ConfigError, match=message):
        design.trials(config, tmp_path)
