"""Evidence against SciPy's tests, and its power against simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from qgen_tf.measures import Evaluation
from qgen_tf.measures.equivalence import accuracy_equivalence
from qgen_tf.study.statistics import evidence
from qgen_tf.study.statistics.paired import MissingError

INF = math.inf


def _of_means(*samples, claimed=(0.0, INF), confidence=0.95):
    return evidence.of_means(
        [np.array(sample, float) for sample in samples],
        claimed,
        unit="points",
        num_pairs=7,
        confidence=confidence,
    )


@pytest.fixture
def samples():
    generator = np.random.default_rng(0)
    return generator.normal(0.5, 1.0, 12), generator.normal(0.0, 3.0, 9)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_one_sample_is_students_test(samples, confidence):
    sample = samples[0]
    found = _of_means(sample, confidence=confidence)
    wanted = scipy.stats.ttest_1samp(sample, 0.0, alternative="greater")
    assert found.effect == pytest.approx(sample.mean())
    assert found.p_for == pytest.approx(wanted.pvalue)
    assert found.p_against == pytest.approx(1.0 - wanted.pvalue)
    both = scipy.stats.ttest_1samp(sample, 0.0)
    assert found.p_value == pytest.approx(both.pvalue)
    interval = both.confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.standard_error == pytest.approx(scipy.stats.sem(sample))
    assert (found.num_clusters, found.num_pairs) == (12, 7)


def test_a_claim_below_zero_mirrors_one_above(samples):
    above = _of_means(samples[0])
    below = _of_means(-samples[0], claimed=(-INF, 0.0))
    assert below.p_for == pytest.approx(above.p_for)
    assert below.p_against == pytest.approx(above.p_against)
    assert below.p_for < below.p_against


def test_two_samples_are_welchs_test(samples):
    found = _of_means(*samples)
    wanted = scipy.stats.ttest_ind(*samples, equal_var=False)
    assert found.p_value == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.num_clusters == 21


@pytest.mark.parametrize("margin", [2.0, 30.0])
def test_equivalence_is_that_of_two_models(margin):
    generator = np.random.default_rng(1)
    ours, theirs = generator.random((2, 60)) < 0.7
    losses = np.zeros(60, np.float32)
    found = _of_means(
        100.0 * ours - 100.0 * theirs, claimed=(-margin, margin), confidence=0.9
    )
    wanted = accuracy_equivalence(
        Evaluation(losses, ours), Evaluation(losses, theirs), margin=margin
    )
    assert found.p_for == pytest.approx(wanted.p_value)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert "two one-sided" in found.test


def test_a_difference_beyond_the_margin_is_against_equivalence():
    sample = np.array([2.0, 2.1, 1.9, 2.2])
    found = _of_means(sample, claimed=(-1.0, 1.0))
    beyond = scipy.stats.ttest_1samp(sample, 1.0, alternative="greater")
    assert found.p_against == pytest.approx(beyond.pvalue)
    assert found.p_for > 0.99
    mirrored = _of_means(-sample, claimed=(-1.0, 1.0))
    assert mirrored.p_against == pytest.approx(found.p_against)


def test_no_worse_has_one_limit():
    sample = np.array([-5.0, -4.0, -6.0, -5.5])
    found = _of_means(sample, claimed=(-INF, 1.0))
    wanted = scipy.stats.ttest_1samp(sample, 1.0, alternative="less")
    assert found.p_for == pytest.approx(wanted.pvalue)
    assert "non-inferiority" in found.test


@pytest.mark.parametrize(
    ("value", "claimed", "p_for", "p_against"),
    [
        (0.3, (0.0, INF), 1 / 32, 1.0),
        (-0.3, (0.0, INF), 1.0, 1 / 32),
        (0.0, (0.0, INF), 1.0, 1.0),
        (0.0, (-1.0, 1.0), 1 / 32, 1.0),
        (2.0, (-1.0, 1.0), 1.0, 1 / 32),
        (0.3, (-INF, 1.0), 1 / 32, 1.0),
    ],
)
def test_equal_clusters_have_the_p_value_of_signs(
    value, claimed, p_for, p_against
):
    found = _of_means([value] * 5, claimed=claimed)
    assert found.standard_error == 0.0
    assert found.low == found.high == found.effect == pytest.approx(value)
    assert (found.p_for, found.p_against) == (p_for, p_against)


@pytest.mark.parametrize("samples", [([1.0],), ([1.0, 2.0], [1.0]), ([],)])
def test_a_cluster_has_no_spread(samples):
    with pytest.raises(MissingError, match="too few"):
        _of_means(*samples)


def _order(prediction, outcome, clusters, **settings):
    return evidence.of_order(
        np.array(prediction),
        np.array(outcome),
        np.array(clusters),
        **{"confidence": 0.95, "seed": 0, **settings},
    )


def test_an_order_is_for_or_against():
    generator = np.random.default_rng(2)
    x, noise = generator.normal(size=(2, 30))
    ours = _order(x, x + noise, np.arange(30) // 3)
    assert ours.p_for < 0.01 and ours.p_against > 0.99
    assert ours.low < ours.effect < ours.high
    wanted = scipy.stats.kendalltau(x, x + noise).statistic
    assert ours.effect == pytest.approx(wanted)
    assert ours.p_for == pytest.approx(
        scipy.stats.t.sf(ours.effect / ours.standard_error, 9)
    )
    assert (ours.num_pairs, ours.num_clusters) == (435, 10)
    theirs = _order(-x, x + noise, np.arange(30) // 3)
    assert theirs.p_against == pytest.approx(ours.p_for)
    wide = _order(x, x + noise, np.arange(30) // 3, confidence=0.99)
    assert wide.low < ours.low and ours.high < wide.high
    assert _order(x, x + noise, np.arange(30) // 3, seed=1) != ours


def test_a_perfect_order_of_few_clusters_is_that_of_signs():
    order = np.arange(4)
    assert _order(order, order, order).p_for == 2.0**-4


def test_an_order_needs_clusters():
    with pytest.raises(MissingError, match="too few"):
        _order([1, 2], [1, 2], [0, 0])


def test_twins_that_follow_the_bits_by_chance_do_not_order():
    """The gap of a float model rises or falls with bits, whichever."""
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(8), 4)
    found = 0
    for seed in range(60):
        bits = np.tile(np.arange(4.0), 8)
        slopes = np.repeat(generator.normal(size=8), 4)
        gap = slopes * bits + 0.1 * generator.normal(size=32)
        found += _order(bits, gap, clusters, seed=seed).p_value <= 0.1
    assert found <= 12  # 6 are expected


@pytest.mark.parametrize(
    ("mean", "claimed"),
    [(0.4, (0.0, INF)), (-0.5, (0.0, INF)), (0.1, (-INF, 0.5))],
)
def test_as_many_as_are_needed_decide_with_the_power_asked_for(mean, claimed):
    generator = np.random.default_rng(4)
    # a sample of exactly this mean and a standard deviation of 1
    sample = scipy.stats.zscore(generator.normal(size=10), ddof=1) + mean
    needed = _of_means(sample, claimed=claimed).clusters_needed(0.05)
    assert 20 < needed < 70
    decided = np.mean(
        [
            _of_means(
                generator.normal(mean, 1.0, needed), claimed=claimed
            ).p_value
            < 0.05
            for _ in range(600)
        ]
    )
    assert decided == pytest.approx(0.8, abs=0.05)


def test_the_power_of_equivalence():
    generator = np.random.default_rng(5)
    sample = scipy.stats.zscore(generator.normal(size=10), ddof=1)
    claimed = (-0.5, 0.5)
    # p_value doubles p_for, so its level is that of a 95 % interval
    needed = _of_means(sample, claimed=claimed).clusters_needed(0.05)
    decided = np.mean(
        [
            _of_means(generator.normal(size=needed), claimed=claimed).p_value
            < 0.05
            for _ in range(600)
        ]
    )
    assert decided == pytest.approx(0.8, abs=0.05)


def test_more_are_needed_at_a_stricter_level_and_none_tell_a_limit():
    found = _of_means([1.0, 2.0, 0.5, -0.2])
    assert found.clusters_needed(0.05) < found.clusters_needed(0.001)
    assert _of_means([1.0, -1.0]).clusters_needed(0.05) is None
    # 2^(1 - 6) <= 0.05 < 2^(1 - 5)
    assert _of_means([1.0, 1.0]).clusters_needed(0.05) == 6
