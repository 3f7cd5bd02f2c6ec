"""Gaps have the right sign, and their intervals cover the truth."""

import tracemalloc

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.measures.evaluate import Evaluation
from qgen_tf.measures.generalization_gap import (
    Interval,
    bootstrap_gap,
    gap_difference,
    generalization_gap,
)


def _evaluation(losses, correct):
    return Evaluation(np.asarray(losses, np.float32), np.asarray(correct))


def _random_evaluation(generator, count, loss, accuracy):
    return _evaluation(
        generator.exponential(loss, count), generator.random(count) < accuracy
    )


def _width(interval):
    return interval.high - interval.low


def test_gap_by_hand_is_train_minus_test_in_nats_and_points():
    train = _evaluation([0.0, 0.5, 0.25, 0.25], [True, True, True, True])
    test = _evaluation([1.0, 3.0], [True, False])
    gap = generalization_gap(train, test)
    assert gap.loss.value == pytest.approx(0.25 - 2.0)
    assert gap.accuracy.value == pytest.approx(100.0 - 50.0)


def test_an_overfit_model_has_negative_loss_and_positive_accuracy_gap():
    generator = np.random.default_rng(0)
    train = _random_evaluation(generator, 500, 0.01, 0.999)
    test = _random_evaluation(generator, 200, 1.0, 0.7)
    gap = generalization_gap(train, test)
    assert gap.loss.low < gap.loss.value < gap.loss.high < 0
    assert 0 < gap.accuracy.low < gap.accuracy.value < gap.accuracy.high
    assert gap.loss.value == pytest.approx(train.loss - test.loss, rel=1e-6)
    assert gap.accuracy.value == pytest.approx(train.accuracy - test.accuracy)


def test_seed_moves_the_interval_only():
    generator = np.random.default_rng(0)
    train, test = generator.exponential(size=(2, 50))
    first = bootstrap_gap(train, test, seed=0)
    assert first == bootstrap_gap(train, test, seed=0)
    other = bootstrap_gap(train, test, seed=1)
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)
    assert _width(other) == pytest.approx(_width(first), rel=0.15)


def test_width_is_that_of_a_difference_of_means():
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=400), generator.normal(0, 3, size=100)
    error = np.hypot(train.std() / 20, test.std() / 10)
    interval = bootstrap_gap(train, test, seed=0)
    assert _width(interval) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_interval_covers_the_truth_95_percent_of_the_time():
    generator = np.random.default_rng(0)
    covered = 0
    for repeat in range(200):
        interval = bootstrap_gap(
            generator.exponential(0.5, size=120),
            generator.exponential(2.0, size=80),
            seed=repeat,
        )
        covered += interval.low <= 0.5 - 2.0 <= interval.high
    assert 180 <= covered <= 198


def test_equal_models_differ_by_exactly_nothing():
    generator = np.random.default_rng(0)
    pair = (
        _random_evaluation(generator, 90, 0.1, 0.9),
        _random_evaluation(generator, 40, 1.0, 0.6),
    )
    difference = gap_difference(pair, pair)
    assert difference.loss == Interval(0.0, 0.0, 0.0)
    assert difference.accuracy == Interval(0.0, 0.0, 0.0)


def test_difference_is_first_minus_second():
    def pair(train, test):
        return (
            _evaluation([train] * 4, [True] * 4),
            _evaluation([test] * 4, [True, True, True, test < 2]),
        )

    difference = gap_difference(pair(1.0, 5.0), pair(0.5, 1.0))
    assert difference.loss.value == pytest.approx((1.0 - 5.0) - (0.5 - 1.0))
    assert difference.accuracy.value == pytest.approx(25.0 - 0.0)


def test_pairing_narrows_the_interval_of_models_that_are_alike():
    generator = np.random.default_rng(0)
    first = (
        _random_evaluation(generator, 300, 0.5, 0.9),
        _random_evaluation(generator, 300, 1.0, 0.6),
    )
    second = tuple(
        _evaluation(
            one.losses * generator.normal(1.0, 0.05, 300).astype(np.float32),
            one.correct ^ (generator.random(300) < 0.02),
        )
        for one in first
    )
    difference = gap_difference(first, second)
    gaps = [generalization_gap(*first), generalization_gap(*second)]
    for field in ("loss", "accuracy"):
        paired = _width(getattr(difference, field))
        unpaired = np.hypot(*[_width(getattr(gap, field)) for gap in gaps])
        assert 0 < paired < unpaired / 2


def test_models_on_other_examples_are_not_compared():
    short, long = (_evaluation([1.0] * n, [True] * n) for n in (3, 4))
    with pytest.raises(errors.DataError, match="3 and 4"):
        gap_difference((short, short), (long, short))
    with pytest.raises(errors.DataError, match="4 and 3"):
        gap_difference((short, long), (short, short))


def test_memory_is_bounded_for_a_large_data_set():
    generator = np.random.default_rng(0)
    train = generator.random(60_000) < 0.99
    test = generator.random(10_000) < 0.9
    tracemalloc.start()
    try:
        interval = bootstrap_gap(100.0 * train, 100.0 * test, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    error = 100 * np.hypot(train.std() / 60_000**0.5, test.std() / 100)
    assert _width(interval) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert peak < 100 * 2**20
