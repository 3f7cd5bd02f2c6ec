"""Kendall's tau of clustered models, against brute force and SciPy."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from qgen_tf import errors
from qgen_tf.study.statistics import kendall


def _brute_force(measure, gap):
    total = sum(
        np.sign(measure[i] - measure[j]) * np.sign(gap[i] - gap[j])
        for i, j in itertools.permutations(range(len(gap)), 2)
    )
    return total / (len(gap) * (len(gap) - 1))


_MODELS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)),
    min_size=2,
    max_size=12,
)


def _columns(models):
    columns = [np.array(column) for column in zip(*models, strict=True)]
    columns[2][0] = 4  # of a cluster that no other row has
    return columns


def test_a_hand_computed_tau():
    # of 6 pairs: 4 agree, 1 disagrees, 1 is tied
    found = kendall.kendall(
        np.array([1, 2, 3, 3]), np.array([10, 30, 20, 40]), np.arange(4)
    )
    assert found.tau == pytest.approx((4 - 1) / 6)
    assert (found.num_models, found.num_clusters) == (4, 4)


@settings(max_examples=50, deadline=None)
@given(_MODELS)
def test_tau_is_that_of_its_definition(models):
    measure, gap, clusters = _columns(models)
    found = kendall.kendall(measure, gap, clusters)
    assert found.tau == pytest.approx(_brute_force(measure, gap), abs=1e-12)
    assert found.num_clusters == len(set(clusters))


@settings(max_examples=50, deadline=None)
@given(_MODELS)
def test_pairs_are_summed_by_their_clusters(models):
    measure, gap, clusters = _columns(models)
    _, codes = np.unique(clusters, return_inverse=True)
    sums = np.zeros((codes.max() + 1,) * 2)
    counts = np.zeros_like(sums)
    for i, j in itertools.permutations(range(len(gap)), 2):
        agreement = np.sign(measure[i] - measure[j]) * np.sign(gap[i] - gap[j])
        sums[codes[i], codes[j]] += agreement
        counts[codes[i], codes[j]] += 1
    found = kendall.pair_sums(measure, gap, codes)
    np.testing.assert_array_equal(found[0], sums)
    np.testing.assert_array_equal(found[1], counts)


def test_blocks_of_rows_add_up(monkeypatch):
    generator = np.random.default_rng(0)
    measure, gap = generator.normal(size=(2, 30))
    codes = generator.permutation(np.arange(30) // 4)
    whole = kendall.pair_sums(measure, gap, codes)
    monkeypatch.setattr(kendall, "_BLOCK_ELEMENTS", 70)
    for found, wanted in zip(
        kendall.pair_sums(measure, gap, codes), whole, strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_copies_of_a_model_are_not_compared_in_the_bootstrap():
    order = np.arange(5)
    found = kendall.kendall(order, order, order)
    assert found.tau == found.low == found.high == 1.0
    assert found.standard_error == 0.0


def test_the_interval_is_that_of_clusters():
    """Twins that are copies tell no more than their float models."""
    generator = np.random.default_rng(1)
    measure, gap = generator.normal(size=(2, 20))
    gap += measure
    alone = kendall.kendall(measure, gap, np.arange(20))
    ours = kendall.kendall(
        *np.repeat([measure, gap], 4, axis=1), np.arange(80) // 4
    )
    rows = kendall.kendall(*np.repeat([measure, gap], 4, axis=1), np.arange(80))
    width, of_clusters, of_rows = (
        found.high - found.low for found in (alone, ours, rows)
    )
    assert of_clusters == pytest.approx(width, rel=0.15)
    assert of_rows < 0.7 * of_clusters
    assert alone.low < alone.tau < alone.high


def test_the_interval_widens_with_confidence_and_repeats_with_its_seed():
    generator = np.random.default_rng(2)
    measure, gap = generator.normal(size=(2, 15))
    clusters = np.arange(15) // 3
    half = kendall.kendall(measure, gap, clusters, confidence=0.5)
    most = kendall.kendall(measure, gap, clusters, confidence=0.95)
    assert most.low < half.low < half.high < most.high
    assert most == kendall.kendall(measure, gap, clusters)
    assert most != kendall.kendall(measure, gap, clusters, seed=1)


def test_single_models_have_the_exact_distribution_of_scipy():
    measure = np.array([0.3, 1.2, 0.1, 2.2, 1.9, 0.7])
    gap = np.array([0.2, 1.0, 0.4, 1.8, 2.5, 0.5])
    found = kendall.permutation_test(measure, gap, np.arange(6))
    assert found.exact
    for alternative, p_value in (
        ("greater", found.p_greater),
        ("less", found.p_less),
        ("two-sided", found.p_value),
    ):
        assert p_value == pytest.approx(
            scipy.stats.kendalltau(
                measure, gap, method="exact", alternative=alternative
            ).pvalue
        )


def test_arrangements_are_those_that_keep_clusters_together():
    # 2 clusters of 2 change places and order within: 2! (2!)^2; the third,
    # alone, stays
    codes = np.array([0, 1, 0, 2, 1])
    found, exact = kendall.arrangements(codes, limit=8, seed=0)
    wanted = {
        places
        for places in itertools.permutations(range(5))
        if codes[places[0]] == codes[places[2]]
        and codes[places[1]] == codes[places[4]]
        and places[3] == 3
    }
    assert exact
    assert sorted(map(tuple, found)) == sorted(wanted)
    assert len(wanted) == 8


def test_drawn_arrangements_keep_clusters_together():
    codes = np.arange(20) // 4
    found, exact = kendall.arrangements(codes, limit=50, seed=3)
    found = list(found)
    assert not exact and len(found) == 50
    for places in found:
        assert sorted(places) == list(range(20))
        moved = codes[places].reshape(5, 4)
        assert (moved == moved[:, :1]).all()
    assert len({tuple(places) for places in found}) == 50


def test_copies_of_models_have_the_p_value_of_their_clusters():
    measure, gap = np.array([[1, 2, 3, 4, 5], [1, 2, 4, 3, 5]])
    alone = kendall.permutation_test(measure, gap, np.arange(5))
    twice = kendall.permutation_test(
        *np.repeat([measure, gap], 2, axis=1),
        np.arange(10) // 2,
        num_permutations=10_000,
    )
    assert alone.exact and twice.exact
    assert twice.p_greater == pytest.approx(alone.p_greater) == 5 / 120


def test_a_sample_of_permutations_counts_the_observed_one():
    order = np.arange(30)
    found = kendall.permutation_test(order, order, order, num_permutations=99)
    assert not found.exact
    assert found.p_greater == pytest.approx(1 / 100)
    assert found.p_less == 1.0
    assert found.p_value == pytest.approx(2 / 100)
    again = kendall.permutation_test(order, order, order, num_permutations=99)
    assert again == found


def test_clusters_alone_are_no_association():
    """Each float model and its twins lie together in both, by chance."""
    generator = np.random.default_rng(4)
    clusters = np.arange(24) // 4
    ours = by_rows = 0
    for _ in range(40):
        measure, gap = np.repeat(
            generator.normal(size=(2, 6)), 4, axis=1
        ) + generator.normal(scale=0.1, size=(2, 24))
        ours += (
            kendall.permutation_test(
                measure, gap, clusters, num_permutations=99
            ).p_value
            <= 0.05
        )
        by_rows += scipy.stats.kendalltau(measure, gap).pvalue <= 0.05
    assert ours <= 4  # 2 are expected
    assert by_rows >= 10


def test_what_does_not_vary_has_no_order():
    gap = np.arange(4.0)
    constant = np.ones(4)
    assert kendall.kendall(constant, gap, gap).tau == 0.0
    found = kendall.permutation_test(constant, gap, gap)
    assert found == kendall.PermutationTest(1.0, 1.0, True)


@pytest.mark.parametrize(
    "function", [kendall.kendall, kendall.permutation_test]
)
@pytest.mark.parametrize(
    ("measure", "clusters"),
    [([1.0, 2.0], [0, 0]), ([1.0, np.nan], [0, 1]), ([], [])],
)
def test_too_few_or_unknown_numbers_are_refused(function, measure, clusters):
    with pytest.raises(errors.DataError, match="two float models"):
        function(np.array(measure), np.arange(len(measure)), np.array(clusters))
