"""Equivalence of gaps and McNemar's test: by hand, by others, by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from qgen_tf import errors
from qgen_tf.measures.equivalence import (
    VERDICTS,
    Equivalence,
    McNemar,
    accuracy_equivalence,
    equivalence,
    mcnemar,
    verdict,
)
from qgen_tf.measures.evaluate import Evaluation
from qgen_tf.measures.generalization_gap import Interval


def _evaluation(correct):
    correct = np.asarray(correct, bool)
    return Evaluation(np.zeros(len(correct), np.float32), correct)


def _pair(train, test):
    return _evaluation(train), _evaluation(test)


def _random_pair(generator, shares=(0.9, 0.8), counts=(300, 200)):
    return _pair(
        *(
            generator.random(count) < share
            for count, share in zip(counts, shares, strict=True)
        )
    )


def test_equivalence_by_hand():
    # train: +1, 0, 0, -1 -> mean 0, variance 2/3; test: +1, 0, 0 -> 1/3, 1/3
    ours = _pair([1, 1, 0, 0], [1, 1, 0])
    theirs = _pair([0, 1, 0, 1], [0, 1, 0])
    found = equivalence(ours, theirs, margin=50.0)
    parts = 1e4 * (2 / 3) / 4, 1e4 * (1 / 3) / 3
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    student = scipy.stats.t(freedom)
    difference = 0.0 - 100 / 3
    assert error == pytest.approx(52.7046, rel=1e-6)
    assert freedom == pytest.approx(5.0)
    assert found.p_lower == pytest.approx(student.sf((difference + 50) / error))
    assert found.p_upper == pytest.approx(
        student.cdf((difference - 50) / error)
    )
    assert found.p_value == max(found.p_lower, found.p_upper)
    half = student.ppf(0.95) * error
    assert found.low == pytest.approx(difference - half)
    assert found.high == pytest.approx(difference + half)
    assert not found.equivalent


def test_p_values_are_those_of_scipys_welch_test():
    generator = np.random.default_rng(0)
    ours, theirs = _random_pair(generator), _random_pair(generator)
    found = equivalence(ours, theirs, margin=3.0)
    train, test = (
        100.0 * a.correct - 100.0 * b.correct
        for a, b in zip(ours, theirs, strict=True)
    )
    for shift, alternative, p_value in (
        (3.0, "greater", found.p_lower),
        (-3.0, "less", found.p_upper),
    ):
        expected = scipy.stats.ttest_ind(
            train + shift, test, equal_var=False, alternative=alternative
        )
        assert p_value == pytest.approx(expected.pvalue, rel=1e-9)
    interval = scipy.stats.ttest_ind(
        train, test, equal_var=False
    ).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)


@pytest.mark.parametrize("margin", [0.1, 2.0, 6.0, 20.0])
def test_equivalent_means_that_the_interval_is_within_the_margin(margin):
    generator = np.random.default_rng(0)
    for _ in range(20):
        found = equivalence(
            _random_pair(generator), _random_pair(generator), margin=margin
        )
        within = -margin < found.low and found.high < margin
        assert found.equivalent == within == (found.p_value < 0.05)


def test_equal_models_are_equivalent_at_any_margin():
    pair = _random_pair(np.random.default_rng(0))
    found = equivalence(pair, pair, margin=1e-9)
    assert found == Equivalence(1e-9, 0.0, 0.0, 0.0, 0.0, 0.0, True)


@pytest.mark.parametrize(
    ("margin", "p_lower", "p_upper"), [(99.0, 0, 1), (100.0, 0, 1), (101, 0, 0)]
)
def test_a_difference_without_error_is_inside_or_not(margin, p_lower, p_upper):
    ours = _pair([1, 1, 1], [1, 0])
    theirs = _pair([0, 0, 0], [1, 0])
    found = equivalence(ours, theirs, margin=margin)
    assert (found.p_lower, found.p_upper) == (p_lower, p_upper)
    assert found.low == found.high == 100.0
    assert found.equivalent == (margin > 100)
    mirrored = equivalence(theirs, ours, margin=margin)
    assert (mirrored.p_upper, mirrored.p_lower) == (p_lower, p_upper)


def test_what_lies_on_the_margin_is_called_equivalent_5_percent_of_the_time():
    generator = np.random.default_rng(0)
    repeats, count, margin = 2000, 400, 10.0
    equivalent = narrow = 0
    for _ in range(repeats):
        train = generator.random(count) < 0.5
        test = generator.random(count) < 0.5
        # the first model loses 10 points on training examples: on the margin
        lost = train & (generator.random(count) < 0.2)
        flipped = test ^ (generator.random(count) < 0.05)
        pairs = _pair(train & ~lost, flipped), _pair(train, test)
        equivalent += equivalence(*pairs, margin=margin).equivalent
        narrow += equivalence(*pairs, margin=2 * margin).equivalent
    assert equivalent / repeats == pytest.approx(0.05, abs=0.015)
    assert narrow / repeats > 0.99


@pytest.mark.parametrize("margin", [0.0, -0.5, math.nan, math.inf])
def test_a_margin_that_is_none(margin):
    pair = _pair([1, 0], [1, 0])
    with pytest.raises(errors.ConfigError, match="margin is .* above 0"):
        equivalence(pair, pair, margin=margin)


def test_one_example_has_no_spread():
    short, long = _pair([1], [1, 0]), _pair([1, 0], [1])
    for pair in (short, long):
        with pytest.raises(errors.DataError, match="at least two"):
            equivalence(pair, pair, margin=1.0)
    with pytest.raises(errors.DataError, match="1 and 2"):
        equivalence(short, long, margin=1.0)


@pytest.mark.parametrize(
    ("only_ours", "only_theirs", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 3, 0.25),
        (5, 0, 2 / 32),
        (6, 1, 2 * 8 / 128),
        (10, 10, 1.0),
    ],
)
def test_mcnemar_by_hand(only_ours, only_theirs, p_value):
    ours = [1] * only_ours + [0] * only_theirs + [1, 1, 0]
    theirs = [0] * only_ours + [1] * only_theirs + [1, 1, 0]
    found = mcnemar(_evaluation(ours), _evaluation(theirs))
    assert found == McNemar(only_ours, only_theirs, pytest.approx(p_value))


def test_mcnemar_is_the_published_example():
    # Agresti, Categorical Data Analysis, table 10.1: 150 and 86 change sides
    ours = np.repeat([1, 0], [150, 86])
    found = mcnemar(_evaluation(ours), _evaluation(1 - ours))
    assert (found.only_ours, found.only_theirs) == (150, 86)
    chi_squared = scipy.stats.chi2.sf((150 - 86) ** 2 / 236, 1)
    assert found.p_value == pytest.approx(chi_squared, rel=0.25)
    assert found.p_value < 1e-4


def test_mcnemar_wants_the_same_examples():
    with pytest.raises(errors.DataError, match="2 and 3"):
        mcnemar(_evaluation([1, 0]), _evaluation([1, 0, 1]))


@pytest.mark.parametrize(
    ("equivalent", "low", "high", "word"),
    [
        (True, -0.2, 0.3, "same"),
        (True, -0.2, 0.6, "same"),  # 95 % is wider than 90 %
        (False, -0.2, 0.6, "cannot tell"),
        (False, 0.4, 0.9, "cannot tell"),
        (False, 0.51, 0.9, "different"),
        (False, -0.9, -0.51, "different"),
        (False, -0.5, -0.5, "cannot tell"),
    ],
)
def test_the_word(equivalent, low, high, word):
    tested = Equivalence(0.5, 0.0, 0.0, 0.0, low, high, equivalent)
    fine = Equivalence(0.5, 0.0, 0.0, 0.0, 0.0, 0.0, True)
    interval = Interval((low + high) / 2, low, high)
    assert word in VERDICTS
    assert verdict(tested, interval, [fine, fine]) == word
    # equal gaps do not make up for an accuracy that differs
    assert verdict(fine, Interval(0.0, 0.0, 0.0), [fine, tested]) == word


def test_a_model_that_guesses_is_not_the_same():
    generator = np.random.default_rng(0)
    theirs = _random_pair(generator, (0.9, 0.9), (4000, 4000))
    ours = _random_pair(generator, (0.1, 0.1), (4000, 4000))
    margin = 5.0
    gap = equivalence(ours, theirs, margin=margin)
    assert gap.equivalent
    accuracies = [
        accuracy_equivalence(a, b, margin=margin)
        for a, b in zip(ours, theirs, strict=True)
    ]
    no_difference = Interval(0.0, 0.0, 0.0)
    assert verdict(gap, no_difference, accuracies) == "different"
    alike = [accuracy_equivalence(a, a, margin=margin) for a in theirs]
    assert verdict(gap, no_difference, alike) == "same"


def test_equivalence_of_accuracies_is_that_of_scipys_test_of_pairs():
    generator = np.random.default_rng(0)
    (ours, _), (theirs, _) = _random_pair(generator), _random_pair(generator)
    found = accuracy_equivalence(ours, theirs, margin=3.0)
    difference = 100.0 * ours.correct - 100.0 * theirs.correct
    lower = scipy.stats.ttest_1samp(difference, -3.0, alternative="greater")
    upper = scipy.stats.ttest_1samp(difference, 3.0, alternative="less")
    assert found.p_lower == pytest.approx(lower.pvalue, rel=1e-9)
    assert found.p_upper == pytest.approx(upper.pvalue, rel=1e-9)
    interval = scipy.stats.ttest_1samp(difference, 0.0).confidence_interval(0.9)
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)
