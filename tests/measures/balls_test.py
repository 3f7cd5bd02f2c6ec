"""Geometry of boxes and ellipsoids, against their definitions."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qgen_tf.measures.balls import Box, Ellipsoid, units

RHO = 0.7


def _tensors(vector):
    """A vector of six as two tensors of other shapes."""
    vector = np.asarray(vector, np.float32)
    return [tf.constant(vector[:4].reshape(2, 2)), tf.constant(vector[4:])]


def _vector(tensors):
    return np.concatenate([np.ravel(part) for part in tensors])


def _ball(kind, lengths, rho=RHO):
    """A ball whose half axes are `rho * lengths`."""
    if kind == "box":
        return Box(_tensors(rho * np.asarray(lengths)))
    return Ellipsoid(rho, _tensors(lengths))


def _vectors(low, high):
    numbers = st.floats(low, high, width=32, allow_subnormal=False)
    return arrays.arrays(np.float32, 6, elements=numbers)


LENGTHS = _vectors(0.0, 8.0).map(lambda v: np.where(v < 0.125, 0, v))
POINTS = _vectors(-16.0, 16.0)
KINDS = st.sampled_from(["box", "ellipsoid"])
# TensorFlow's first calls take long
relaxed = settings(max_examples=25, deadline=None)


@relaxed
@given(KINDS, LENGTHS, st.integers(0, 1000))
def test_a_random_point_is_inside(kind, lengths, seed):
    ball = _ball(kind, lengths)
    point = ball.random((seed, 1))
    assert ball.contains(point)
    moved = _vector(point)
    np.testing.assert_array_equal(moved != 0, lengths > 0)
    np.testing.assert_array_equal(moved, _vector(ball.random((seed, 1))))
    if lengths.any():
        assert not np.array_equal(moved, _vector(ball.random((seed, 2))))


@pytest.mark.parametrize(
    "lengths", [[2, 0.5, 1, 3, 1, 1], [2, 0, 0, 0.5, 0, 1]]
)
def test_random_points_of_an_ellipsoid_are_uniform(lengths):
    ball = _ball("ellipsoid", lengths)
    free = np.array(lengths) > 0
    points = np.array([_vector(ball.random((0, n))) for n in range(200)])
    round_points = points[:, free] / np.array(lengths)[free] / RHO
    norms = np.linalg.norm(round_points, axis=1)
    # the share of the volume within the norm of a point is uniform
    volumes = norms ** free.sum()
    assert scipy.stats.kstest(volumes, "uniform").pvalue > 1e-3
    # no direction is preferred
    second = 1 / (free.sum() + 2)
    means = round_points.mean(axis=0) * (200 / second) ** 0.5
    assert np.abs(means).max() < 4
    np.testing.assert_allclose((round_points**2).mean(axis=0), second, rtol=0.4)


def test_a_random_point_of_many_dimensions_is_no_longer_than_rho():
    # standard normal numbers times rho would have a norm of 100 rho
    ball = Ellipsoid(RHO, [tf.ones([100, 100])])
    assert 0.99 * RHO < np.linalg.norm(ball.random((0, 0))[0]) <= RHO


def test_random_points_of_a_box_are_uniform():
    box = Box([tf.fill([1000], 0.25), tf.fill([1000], 4.0)])
    first, second = (part.numpy() for part in box.random((0, 0)))
    for part, radius in ((first, 0.25), (second, 4.0)):
        shares = (part / radius + 1) / 2
        assert scipy.stats.kstest(shares, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


@relaxed
@given(KINDS, LENGTHS, POINTS, st.integers(0, 1000))
def test_steepest_maximizes_the_linear_form(kind, lengths, slope, seed):
    ball = _ball(kind, lengths)
    point = ball.steepest(_tensors(slope))
    assert ball.contains(point)
    value = slope.astype(np.float64) @ _vector(point)
    # the dual norm
    dual = RHO * np.linalg.norm(
        lengths.astype(np.float64) * slope, 1 if kind == "box" else 2
    )
    assert value == pytest.approx(dual, rel=1e-5, abs=1e-30)
    other = slope.astype(np.float64) @ _vector(ball.random((seed, 0)))
    assert other <= value * (1 + 1e-5) + 1e-30


@pytest.mark.parametrize("kind", ["box", "ellipsoid"])
def test_no_slope_gives_no_step(kind):
    flat = _tensors(np.zeros(6))
    np.testing.assert_array_equal(
        _vector(_ball(kind, [1, 2, 0, 1, 1, 1]).steepest(flat)), np.zeros(6)
    )
    slope = _tensors(np.ones(6))
    np.testing.assert_array_equal(
        _vector(_ball(kind, np.zeros(6)).steepest(slope)), np.zeros(6)
    )


@relaxed
@given(KINDS, LENGTHS, POINTS)
def test_project_goes_inside_and_stays(kind, lengths, point):
    ball = _ball(kind, lengths)
    once = ball.project(_tensors(point))
    assert ball.contains(once)
    if ball.contains(_tensors(point * np.float32(1.0001))):
        np.testing.assert_array_equal(_vector(once), point)
    twice = ball.project(once)
    np.testing.assert_allclose(_vector(twice), _vector(once), rtol=1e-6)


@relaxed
@given(KINDS, LENGTHS, POINTS)
def test_project_is_the_nearest_point(kind, lengths, point):
    assume(lengths.any())
    ball = _ball(kind, lengths)
    nearest = _vector(ball.project(_tensors(point))).astype(np.float64)
    free = lengths > 0
    # p is nearest to y if no point q of the ball has (y - p)(q - p) > 0
    slope = np.zeros(6)
    slope[free] = (point - nearest)[free] / lengths[free] ** 2
    further = _vector(ball.steepest(_tensors(slope)))
    gain = slope @ (further - nearest)
    scale = np.linalg.norm(slope) * (1 + np.linalg.norm(further))
    assert gain <= 1e-5 * scale


@pytest.mark.parametrize("kind", ["box", "ellipsoid"])
@pytest.mark.parametrize("seed", range(3))
def test_project_as_a_solver_finds_it(kind, seed):
    generator = np.random.default_rng(seed)
    lengths = generator.uniform(0.5, 2.0, size=6)
    point = 3 * generator.normal(size=6)

    def room(offset):
        if kind == "box":
            share = offset / lengths
            return np.concatenate([RHO - share, RHO + share])
        return RHO**2 - ((offset / lengths) ** 2).sum()

    found = scipy.optimize.minimize(
        lambda offset: (((offset - point) / lengths) ** 2).sum(),
        np.zeros(6),
        constraints={"type": "ineq", "fun": room},
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 500},
    )
    assert found.success
    nearest = _ball(kind, lengths).project(_tensors(point))
    np.testing.assert_allclose(_vector(nearest), found.x, atol=1e-4)


def test_tiny_weights_make_no_number_that_is_none():
    lengths = [1e-30, 1e-38, 0.0, 1.0, 1e-20, 1e20]
    slope = np.array([1e20, 1e-30, 1.0, 1e-20, 0.0, 1e-25])
    for kind in ("box", "ellipsoid"):
        ball = _ball(kind, lengths, rho=0.5)
        for point in (
            ball.random((0, 0)),
            ball.steepest(_tensors(slope)),
            ball.project(_tensors(slope)),
        ):
            assert np.isfinite(_vector(point)).all()
            assert ball.contains(point)


@pytest.mark.parametrize("kind", ["box", "ellipsoid"])
def test_contains_refuses(kind):
    ball = _ball(kind, [2, 1, 0, 1, 1, 1])
    inside = np.array([1.4, 0, 0, 0, 0, 0])
    assert ball.contains(_tensors(inside))
    for index, value in ((0, 1.401), (0, np.nan), (2, 1e-6), (5, np.inf)):
        outside = inside.copy()
        outside[index] = value
        assert not ball.contains(_tensors(outside))


def test_the_corner_of_a_box_is_outside_of_the_ellipsoid():
    corner = _tensors(np.full(6, RHO))
    assert _ball("box", np.ones(6)).contains(corner)
    assert not _ball("ellipsoid", np.ones(6)).contains(corner)


def test_units_are_one_or_the_size_of_the_weight():
    weights = [tf.constant([[-2.0, 0.0]]), tf.constant([0.5])]
    plain = units(weights, adaptive=False)
    np.testing.assert_array_equal(_vector(plain), [1, 1, 1])
    sizes = units(weights, adaptive=True)
    np.testing.assert_array_equal(_vector(sizes), [2, 0, 0.5])
    widened = units(weights, adaptive=True, eta=0.25)
    np.testing.assert_array_equal(_vector(widened), [2.25, 0.25, 0.75])
    assert [part.shape for part in sizes] == [part.shape for part in weights]
