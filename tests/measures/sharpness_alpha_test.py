"""Sharpness alpha of classifiers whose worst offset is known."""

import math

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.measures import ascent
from qgen_tf.measures.sharpness_alpha import sharpness_alpha
from tests.measures import closed_forms, unit_classifiers

COUNT = 200
# of which a tenth is below 0.1, an offset against each makes it wrong
WEIGHTS = ((np.arange(COUNT) + 0.5) / COUNT).astype(np.float32)
# accuracy takes steps of 1 / COUNT, and a line is drawn from one scale to the
# next
TOLERANCE = 0.06
SETTINGS = {"num_steps": 3}


def _graded(batch_size=None):
    order = np.random.default_rng(0).permutation(COUNT)
    return (
        unit_classifiers.network(WEIGHTS[order]),
        unit_classifiers.dataset(COUNT, batch_size),
    )


@pytest.mark.parametrize(
    "settings, truth",
    [
        ({}, 0.1),
        ({"target_drop": 0.3}, 0.3),
        # wrong where w <= alpha w + epsilon
        ({"adaptive": True, "epsilon": 0.05}, 0.5),
    ],
)
def test_closed_form(settings, truth):
    result = sharpness_alpha(*_graded(), **settings, **SETTINGS)
    assert result.value == pytest.approx(truth, rel=TOLERANCE)
    assert result.converged is True
    assert result.standard_error < 1e-12  # each ascent finds the worst
    assert result.unit == ("|weight|" if "adaptive" in settings else "weight")
    assert result.details["accuracy"] == 1.0
    assert result.details["num_weights"] == COUNT
    assert result.details["hit_bound"] is None


def test_an_ascent_sees_a_part_of_the_data_and_is_tried_on_all():
    # the weights of all other examples do not move: an ascent that sees half
    # of them has to make twice as many of those wrong
    model, dataset = _graded(batch_size=10)
    result = sharpness_alpha(
        model, dataset, examples_per_draw=COUNT // 2, **SETTINGS
    )
    assert result.value == pytest.approx(0.2, rel=0.15)
    # which half is drawn makes a difference
    assert result.standard_error > 0.0
    other = sharpness_alpha(
        model,
        dataset,
        examples_per_draw=COUNT // 2,
        num_restarts=1,
        **SETTINGS,
    )
    assert other.standard_error == 0.0
    assert other.value >= result.value


def test_the_seed_decides_on_the_part():
    model, dataset = _graded(batch_size=10)
    values = {
        sharpness_alpha(
            model,
            dataset,
            seed=seed,
            examples_per_draw=COUNT // 4,
            num_restarts=1,
            target_drop=0.05,
            **SETTINGS,
        ).value
        for seed in (0, 1, 0)
    }
    assert len(values) == 2


def test_passes_are_those_that_were_taken(monkeypatch):
    calls = []

    def counted(*args, **kwargs):
        found = worst_offset(*args, **kwargs)
        calls.append(found.num_passes)
        return found

    worst_offset = ascent.worst_offset
    monkeypatch.setattr(ascent, "worst_offset", counted)
    result = sharpness_alpha(
        *_graded(batch_size=10), examples_per_draw=COUNT // 4, **SETTINGS
    )
    # each on a fourth of the data, and then on all of it
    passes = sum(calls) / 4 + len(calls)
    assert result.details["num_passes"] == pytest.approx(passes, rel=1e-12)


def test_adaptive_is_blind_to_a_rescaling_of_relu_layers():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(200, 5)).astype(np.float32)
    first = generator.normal(size=(5, 16)).astype(np.float32)
    second = generator.normal(size=(16, 4)).astype(np.float32)
    model = closed_forms.network(first, second)
    labels = model.predict(images, verbose=0).argmax(axis=-1)
    dataset = closed_forms.dataset(images, labels, 200)
    rescaled = closed_forms.network(first * 8, second / 8)
    values = [
        sharpness_alpha(
            network, dataset, adaptive=adaptive, epsilon=0.0, **SETTINGS
        ).value
        for adaptive in (True, False)
        for network in (model, rescaled)
    ]
    # rounding may turn single examples
    assert values[1] == pytest.approx(values[0], rel=0.01)
    assert values[3] < 0.5 * values[2]


@pytest.mark.parametrize(
    "bounds, hit", [((1e-4, 0.01), "high"), ((0.5, 2.0), "low")]
)
def test_an_answer_out_of_bounds_is_the_bound_and_not_converged(bounds, hit):
    result = sharpness_alpha(*_graded(), bounds=bounds, **SETTINGS)
    assert result.converged is False
    assert result.value == bounds[hit == "high"]
    assert result.details["hit_bound"] == hit


def test_weights_return():
    model, dataset = _graded()
    before = [value.tobytes() for value in model.get_weights()]
    sharpness_alpha(model, dataset, point="latent", **SETTINGS)
    assert [value.tobytes() for value in model.get_weights()] == before


def test_weights_return_after_an_interruption(monkeypatch):
    model, dataset = _graded()
    before = [value.tobytes() for value in model.get_weights()]

    def interrupted(near, *args, **kwargs):
        near.move(near.originals, math.pi)
        assert model.get_weights()[0].tobytes() != before[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(ascent, "worst_offset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sharpness_alpha(model, dataset, point="latent")
    assert [value.tobytes() for value in model.get_weights()] == before


@pytest.mark.parametrize(
    "settings",
    [
        {"bounds": (0.0, 1.0)},
        {"target_drop": 1.0},
        {"epsilon": float("nan")},
        {"num_restarts": 0},
        {"num_steps": 0},
        {"examples_per_draw": 0},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="sharpness_alpha needs"):
        sharpness_alpha(*_graded(), **settings)
