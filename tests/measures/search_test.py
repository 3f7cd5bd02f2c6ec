"""The search, on drops whose crossing is known."""

import math

import numpy as np
import pytest
import scipy.stats

from qgen_tf.measures.search import find_crossing

SETTINGS = {
    "target": 0.1,
    "bounds": (1e-4, 2.0),
    "num_scouts": 3,
    "num_draws": 10,
    "max_draws": 100,
    "relative_error": 0.03,
}


def _noisy(seed, spread=0.1):
    """A drop that each draw has at another scale, `N(0, spread^2)` in log.

    Its mean is `P(log(scale) + sqrt(1 + spread^2) v > log(0.5))`, v normal.
    """
    shifts = np.random.default_rng(seed).normal(size=1000) * spread
    truth = 0.5 * math.exp(math.sqrt(1 + spread**2) * scipy.stats.norm.ppf(0.1))

    def drop(scale, draw):
        return scipy.stats.norm.cdf(math.log(scale / 0.5) + shifts[draw])

    return drop, truth


@pytest.mark.parametrize("power", [0.5, 2, 6])
def test_a_power_without_noise(power):
    # off by as much as a straight line is, see _RATIO
    found = find_crossing(
        lambda scale, draw: (scale / 0.3) ** power * 0.1, **SETTINGS
    )
    assert found.scale == pytest.approx(0.3, rel=0.003 * power)
    assert found.relative_error == pytest.approx(0.0, abs=1e-12)
    assert found.num_draws == 10
    assert found.hit_bound is None
    assert found.drop == 0.1
    low, high = found.bracket
    assert low < found.scale < high < 1.2 * low


def test_standard_error_is_the_spread_over_seeds():
    values, errors = [], []
    for seed in range(200):
        drop, truth = _noisy(seed)
        found = find_crossing(
            drop, **{**SETTINGS, "num_draws": 20, "relative_error": 1.0}
        )
        assert found.num_draws == 20
        values.append(math.log(found.scale))
        errors.append(found.relative_error)
    # 200 seeds know the spread to 5 %, and the mean to error / sqrt(200)
    error = np.mean(errors)
    assert np.std(values) == pytest.approx(error, rel=0.15)
    # but for the line, of which _RATIO knows 0.6 % here
    assert np.mean(values) == pytest.approx(
        math.log(truth), abs=4 * error / 200**0.5 + 0.006
    )


def test_draws_are_added_until_the_error_is_small_enough():
    drop, truth = _noisy(0, spread=0.5)
    draws = []
    for wanted in (0.2, 0.05):
        found = find_crossing(
            drop, **{**SETTINGS, "max_draws": 1000, "relative_error": wanted}
        )
        assert found.relative_error <= wanted
        assert abs(math.log(found.scale / truth)) < 4 * wanted
        draws.append(found.num_draws)
    # about 16 times as many; not many more than that takes
    assert draws[0] == 10
    assert 0.3 < found.num_draws / (draws[0] * 16) < 2.0
    assert found.relative_error > 0.03


def test_draws_end_at_their_maximum():
    drop, _ = _noisy(0, spread=0.5)
    found = find_crossing(drop, **{**SETTINGS, "max_draws": 12})
    assert found.num_draws == 12
    assert found.relative_error > 0.03


def test_each_draw_is_tried_once_at_few_scales():
    noisy, _ = _noisy(0)
    seen = []

    def drop(scale, draw):
        seen.append((scale, draw))
        return noisy(scale, draw)

    found = find_crossing(drop, **SETTINGS)
    assert len(set(seen)) == len(seen)
    scales = {scale for scale, draw in seen if draw == found.num_draws - 1}
    assert set(found.bracket) <= scales
    assert len(scales) <= 4
    # 15 steps of a bisection with all draws take 15 times the draws
    assert len(seen) < 60 < 15 * found.num_draws


def test_the_scales_at_which_it_starts_make_no_difference():
    drop, _ = _noisy(0)
    first = find_crossing(drop, **SETTINGS)
    second = find_crossing(drop, **{**SETTINGS, "bounds": (1e-6, 77.0)})
    # the same draws, but for the line between two scales
    assert second.num_draws == first.num_draws
    assert second.scale == pytest.approx(first.scale, rel=0.005)


def test_scouts_that_mislead():
    # the first three draws are far more robust than the others
    def drop(scale, draw):
        return 0.1 * scale / (1.0 if draw < 3 else 0.01)

    found = find_crossing(drop, **SETTINGS)
    mean = 0.1 * (3 + 97 * 100) / 100  # of 100 draws, at scale 1
    assert found.num_draws == 100 or found.relative_error <= 0.03
    draws = found.num_draws
    mean = 0.1 * (3 + (draws - 3) * 100) / draws
    assert found.scale == pytest.approx(0.1 / mean, rel=0.003)


@pytest.mark.parametrize(
    "bounds, hit, drop",
    [((1e-4, 0.01), "high", 0.01 / 3), ((1.0, 2.0), "low", 1 / 3)],
)
@pytest.mark.parametrize("worst", [False, True])
def test_a_crossing_out_of_bounds(bounds, hit, drop, worst):
    found = find_crossing(
        lambda scale, draw: scale / 3,
        **{**SETTINGS, "bounds": bounds},
        worst=worst,
    )
    assert found.hit_bound == hit
    assert found.scale in bounds
    assert found.scale == bounds[hit == "high"]
    assert found.bracket == (found.scale, found.scale)
    assert found.drop == pytest.approx(drop)


def test_the_worst_counts_and_not_the_mean():
    factors = [1.0, 2.0, 1.5]
    settings = {
        **SETTINGS,
        "num_scouts": 1,
        "num_draws": 3,
        "max_draws": 3,
        "relative_error": math.inf,
    }

    def drop(scale, draw):
        return factors[draw] * scale

    found = find_crossing(drop, **settings, worst=True)
    assert found.scale == pytest.approx(0.05, rel=0.005)
    # drops of 0.05, 0.1 and 0.075 there, at a slope of 0.1 in log(scale)
    assert found.relative_error == pytest.approx(0.25, rel=0.02)
    single = find_crossing(
        drop, **{**settings, "num_draws": 1, "max_draws": 1}, worst=True
    )
    assert single.scale == pytest.approx(0.1, rel=0.005)
    assert single.relative_error == 0.0
