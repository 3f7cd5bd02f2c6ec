"""PAC-Bayes sigma of classifiers whose accuracy under noise is known."""

import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import pac_bayes_sigma


def _classifiers(weight, count=100):
    """`count` classifiers of one example each, with independent noise.

    Example i is the unit vector i, of class 0, and its logits are
    `[w + sigma u_i, sigma v_i]`, or `[w + sigma u_i, 0]` for adaptive noise
    and w = 1. It is right while their difference is above zero.
    """
    inputs = keras.Input([count])
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, dense(inputs))
    kernel = np.zeros((count, 2), np.float32)
    kernel[:, 0] = weight
    dense.kernel.assign(kernel)
    images = np.eye(count, dtype=np.float32)
    labels = np.zeros(count, np.int64)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return model, dataset.batch(count).cache()


def _sigma(weight, drop, adaptive):
    """The answer: `P(difference < 0) = drop`."""
    margin = -scipy.stats.norm.ppf(drop)
    return 1 / margin if adaptive else weight / (margin * math.sqrt(2))


@pytest.mark.parametrize(
    "weight, drop, adaptive",
    [(1.0, 0.1, False), (0.1, 0.1, False), (1.0, 0.2, False), (0.1, 0.1, True)],
)
def test_closed_form(weight, drop, adaptive):
    # noise of standard deviation sigma: were it the variance, the answer for
    # w = 0.1 would be 0.23 and not 0.055
    result = pac_bayes_sigma(
        *_classifiers(weight),
        target_drop=drop,
        num_samples=20,
        adaptive=adaptive,
    )
    truth = _sigma(weight, drop, adaptive)
    assert abs(result.value - truth) < 4 * result.standard_error
    assert 0 < result.standard_error < 0.05 * truth
    assert result.converged is True
    assert result.unit == ("|weight|" if adaptive else "weight")
    assert result.details["accuracy"] == 1.0


def test_standard_error_is_the_spread_over_seeds():
    classifiers = _classifiers(1.0)
    results = [
        pac_bayes_sigma(*classifiers, seed=seed, num_samples=5)
        for seed in range(24)
    ]
    values = [result.value for result in results]
    error = np.mean([result.standard_error for result in results])
    # 24 seeds know the spread to 15 %
    assert np.std(values, ddof=1) == pytest.approx(error, rel=0.5)
    truth = _sigma(1.0, 0.1, adaptive=False)
    assert np.mean(values) == pytest.approx(truth, abs=4 * error / 24**0.5)


def test_the_same_seed_gives_the_same_draws_at_every_sigma():
    classifiers = _classifiers(1.0)
    first, second, other = (
        pac_bayes_sigma(*classifiers, seed=seed, num_samples=3)
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first.value != other.value
    # the draws stay the same when the search takes another path
    moved = pac_bayes_sigma(
        *classifiers, seed=0, num_samples=3, bounds=(1e-2, 5.0)
    )
    assert moved.value == pytest.approx(first.value, rel=0.01)
    # and scale with the weights
    double = pac_bayes_sigma(
        *_classifiers(2.0), seed=0, num_samples=3, bounds=(2e-4, 4.0)
    )
    assert double.value == pytest.approx(2 * first.value, rel=1e-5)


@pytest.mark.parametrize(
    "bounds, hit", [((1e-4, 0.01), 0.01), ((10.0, 20.0), 10.0)]
)
def test_an_answer_out_of_bounds_is_the_bound_and_not_converged(bounds, hit):
    result = pac_bayes_sigma(*_classifiers(1.0), bounds=bounds)
    assert result.converged is False
    assert result.value == pytest.approx(hit, rel=1e-12)
    assert result.settings["bounds"] == list(bounds)


def test_a_model_at_chance_has_no_accuracy_to_lose():
    model, dataset = _classifiers(1.0)
    wrong = dataset.map(lambda images, labels: (images, labels + 1))
    result = pac_bayes_sigma(model, wrong)
    assert result.details["accuracy"] == 0.0
    assert result.converged is False
    assert result.value == pytest.approx(2.0, rel=1e-12)


def test_overflow_counts_as_lost_accuracy():
    inputs = keras.Input([4])
    x = keras.layers.Dense(4, use_bias=False)(inputs)
    outputs = keras.layers.Dense(2, use_bias=False)(x)
    model = keras.Model(inputs, outputs)
    first = np.eye(4, dtype=np.float32)
    model.set_weights([first, np.eye(4, 2, dtype=np.float32)])
    images = np.repeat(first[:2], 20, axis=0)
    labels = np.repeat([0, 1], 20)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(40)
    narrow, wide = (
        pac_bayes_sigma(model, dataset, bounds=(1e-3, high))
        for high in (2.0, 1e30)
    )
    assert wide.converged is narrow.converged is True
    assert wide.value == pytest.approx(narrow.value, rel=0.05)


def test_a_model_that_has_diverged():
    model, dataset = _classifiers(float("nan"))
    with pytest.raises(errors.ModelError, match="diverged"):
        pac_bayes_sigma(model, dataset)


@pytest.mark.parametrize(
    "settings",
    [
        {"bounds": (0.0, 1.0)},
        {"bounds": (1.0, 0.5)},
        {"bounds": (1.0, float("inf"))},
        {"bounds": (1.0, float("nan"))},
        {"target_drop": 0.0},
        {"target_drop": 1.0},
        {"target_drop": float("nan")},
        {"num_samples": 1},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="pac_bayes_sigma needs"):
        pac_bayes_sigma(*_classifiers(1.0), **settings)
