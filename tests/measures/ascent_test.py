"""Ascents whose highest point is known."""

import contextlib
import itertools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.measures import ascent, perturbations
from qgen_tf.measures.balls import Box, Ellipsoid, units
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES

KERNEL = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
SECOND_MOMENT = (IMAGES.T @ IMAGES / len(IMAGES)).astype(np.float64)
RHO = 0.3


@contextlib.contextmanager
def _near(kernel, loss_fn=closed_forms.quadratic, dataset=None):
    with perturbations.neighbourhood(
        closed_forms.network(kernel),
        dataset or closed_forms.dataset(),
        loss_fn,
        point="latent",
        variables=perturbations.kernels,
    ) as near:
        yield near


def _worst(near, ball, **settings):
    settings = {"num_steps": 30, "num_restarts": 1, "seed": 0, **settings}
    return ascent.worst_offset(near, ball, **settings)


def _scalar(loss_fn, weight=0.0):
    """One weight w, one image of 1: the loss is a function of w."""
    kernel = np.full((1, 1), weight, np.float32)
    images = np.ones((1, 1), np.float32)
    dataset = closed_forms.dataset(images, np.zeros(1, np.int64))
    return _near(kernel, lambda labels, outputs: loss_fn(outputs), dataset)


UNIT_BOX = Box([tf.ones([1, 1])])


def _largest_rise(slope, hessian, rho):
    """The maximum of `g d + d H d / 2` over `||d|| <= rho`, H positive.

    At it `(mu - H) d = g`, with a mu above all eigenvalues.
    """
    values, vectors = np.linalg.eigh(hessian)
    parts = vectors.T @ slope

    def excess(mu):
        return np.linalg.norm(parts / (mu - values)) - rho

    top = values[-1]
    mu = scipy.optimize.brentq(
        excess, top + 1e-9, top + 2 * np.linalg.norm(slope) / rho, xtol=1e-14
    )
    offset = parts / (mu - values)
    return parts @ offset + (values * offset**2).sum() / 2


@pytest.mark.parametrize("adaptive", [False, True])
def test_of_a_quadratic_it_is_the_largest_in_the_ellipsoid(adaptive):
    sizes = np.abs(KERNEL) if adaptive else np.ones_like(KERNEL)
    sizes = sizes.T.ravel().astype(np.float64)
    # column after column
    hessian = np.kron(np.eye(3), SECOND_MOMENT)
    slope = hessian @ KERNEL.T.ravel()
    rho = 1.0
    truth = _largest_rise(sizes * slope, hessian * np.outer(sizes, sizes), rho)
    with _near(KERNEL) as near:
        ball = Ellipsoid(rho, units(near.originals, adaptive=adaptive))
        worst = _worst(near, ball)
    assert ball.contains(worst.offsets)
    assert worst.loss - worst.zero[0] == pytest.approx(truth, rel=1e-4)
    assert worst.zero[0] == pytest.approx(near.loss, rel=1e-6)
    # the step of SAM falls short of it
    step = rho * sizes**2 * slope / np.linalg.norm(sizes * slope)
    assert slope @ step + step @ hessian @ step / 2 < 0.998 * truth


def test_at_an_exact_minimum_it_is_half_the_largest_eigenvalue():
    top = np.linalg.eigvalsh(SECOND_MOMENT)[-1]
    with _near(np.zeros_like(KERNEL)) as near:
        worst = _worst(near, Ellipsoid(RHO, [tf.ones([5, 3])]))
    assert worst.zero == (0.0, pytest.approx(near.accuracy))
    assert worst.loss == pytest.approx(RHO**2 * top / 2, rel=1e-3)


def test_in_a_box_it_is_a_corner():
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(5, 1)).astype(np.float32)
    radii = generator.uniform(0.1, 0.5, size=(5, 1)).astype(np.float32)
    corners = [
        kernel + radii * np.array(signs)[:, None]
        for signs in itertools.product([-1, 1], repeat=5)
    ]
    truth = max(((IMAGES @ c) ** 2).mean() / 2 for c in corners)
    with _near(kernel) as near:
        worst = _worst(near, Box([tf.constant(radii)]), num_restarts=8)
    assert worst.loss == pytest.approx(truth, rel=1e-5)


def test_one_step_is_enough_for_a_linear_loss():
    slope = np.repeat(IMAGES.mean(axis=0)[:, None], 3, axis=1)
    radii = 0.1 * np.abs(KERNEL)
    cases = [
        (Ellipsoid(RHO, [tf.ones([5, 3])]), RHO * np.linalg.norm(slope)),
        (
            Ellipsoid(RHO, [tf.abs(KERNEL)]),
            RHO * np.linalg.norm(slope * KERNEL),
        ),
        (Box([tf.constant(radii)]), (radii * np.abs(slope)).sum()),
    ]
    with _near(KERNEL, closed_forms.linear) as near:
        for (ball, truth), num_steps in itertools.product(cases, (1, 2, 20)):
            worst = _worst(near, ball, num_steps=num_steps)
            rise = worst.loss - worst.zero[0]
            assert rise == pytest.approx(truth, rel=1e-4)


def test_where_the_loss_only_falls_zero_wins():
    def bump(labels, outputs):
        return -closed_forms.quadratic(labels, outputs)

    with _near(np.zeros_like(KERNEL), bump) as near:
        worst = _worst(near, Ellipsoid(RHO, [tf.ones([5, 3])]), num_steps=5)
    assert worst.loss == worst.zero[0] == 0.0
    assert not np.any(worst.offsets[0])


def test_restarts_find_the_higher_of_two_hills():
    # at 0 the slope is 1, up to 1 at w = 1; beyond w = -1/4 it is 2 at w = -1
    with _scalar(lambda y: tf.maximum(y, -3 * y - 1)[:, 0]) as near:
        once, often = (
            _worst(near, UNIT_BOX, num_restarts=count) for count in (1, 8)
        )
    assert once.loss == 1.0
    assert often.loss == 2.0
    np.testing.assert_array_equal(often.offsets[0], [[-1.0]])


def test_random_starts_are_a_function_of_the_seed():
    with _near(np.zeros_like(KERNEL)) as near:
        ball = Ellipsoid(RHO, [tf.ones([5, 3])])
        first, again, other = (
            _worst(near, ball, num_steps=1, seed=seed) for seed in (0, 0, 1)
        )
    assert first == again
    assert first.loss != other.loss


def test_accuracies_are_of_the_best_and_of_the_least():
    class Loss:
        def __call__(self, labels, outputs):
            return outputs[:, 0]

        def correct(self, labels, outputs):
            return outputs[:, 0] > 0.5

    # right at w = 1 only, where the loss is largest
    images = np.ones((1, 1), np.float32)
    dataset = closed_forms.dataset(images, np.zeros(1, np.int64))
    with _near(np.zeros((1, 1), np.float32), Loss(), dataset) as near:
        worst = _worst(near, UNIT_BOX)
    assert worst.zero == (0.0, 0.0)
    assert worst.loss == worst.accuracy == 1.0
    assert worst.lowest_accuracy == 0.0


def test_passes_are_counted():
    passes = []

    def examples():
        passes.append(1)
        yield IMAGES, np.zeros(len(IMAGES), np.int64)

    dataset = tf.data.Dataset.from_generator(
        examples,
        output_signature=(
            tf.TensorSpec([None, 5], tf.float32),
            tf.TensorSpec([None], tf.int64),
        ),
    )
    with _near(KERNEL, dataset=dataset) as near:
        passes.clear()
        worst = _worst(
            near,
            Ellipsoid(RHO, [tf.ones([5, 3])]),
            num_steps=7,
            num_restarts=3,
        )
    # zero, and the other two starts, and the steps of each
    assert worst.num_passes == len(passes) == 1 + 2 + 3 * 7


def test_other_data_may_decide():
    few = IMAGES[:4]
    slope = np.repeat(few.mean(axis=0)[:, None], 3, axis=1)
    with _near(KERNEL, closed_forms.linear) as near:
        objective = near.objective.on(
            closed_forms.dataset(few, np.zeros(4, np.int64))
        )
        worst = _worst(
            near, Ellipsoid(RHO, [tf.ones([5, 3])]), objective=objective
        )
    assert worst.zero[0] == pytest.approx(few.mean(axis=0) @ KERNEL.sum(axis=1))
    rise = worst.loss - worst.zero[0]
    assert rise == pytest.approx(RHO * np.linalg.norm(slope), rel=1e-4)


@pytest.mark.parametrize("beyond", [np.nan, np.inf])
def test_steps_that_overflow_are_taken_back(beyond):
    # rising up to w = 0.2, and no number from there
    with _scalar(lambda y: tf.where(y < 0.2, y, beyond)[:, 0]) as near:
        worst = _worst(near, UNIT_BOX)
    assert worst.finite is False
    assert worst.zero[0] == 0.0
    assert 0.1 < worst.loss < 0.2
    assert worst.loss == pytest.approx(worst.offsets[0].numpy().item())


def test_an_overflow_everywhere_is_no_error():
    with _near(KERNEL) as near:
        ball = Ellipsoid(1e30, [tf.ones([5, 3])])
        worst = _worst(near, ball, num_restarts=3)
    assert worst.finite is False
    assert worst.loss == worst.zero[0] == pytest.approx(near.loss)
    assert np.isfinite(worst.lowest_accuracy)


def test_a_loss_without_a_slope_is_not_a_number_that_is_none():
    inputs = keras.Input([5])
    outputs = tf.stop_gradient(keras.layers.Dense(3, use_bias=False)(inputs))
    with perturbations.neighbourhood(
        keras.Model(inputs, outputs),
        closed_forms.dataset(),
        closed_forms.quadratic,
        point="latent",
        variables=lambda model: [model.layers[1].kernel],
    ) as near:
        worst = _worst(near, Ellipsoid(RHO, [tf.ones([5, 3])]), num_steps=3)
    assert worst.finite is True
    assert worst.loss >= worst.zero[0] > 0


def test_checkpoints_grow_denser():
    # 22, 41, 57, 70, 80, 87, 93, 99 %, rounded up
    assert ascent._checkpoints(100) == {22, 41, 57, 70, 80, 87, 93, 99}
    assert ascent._checkpoints(20) == {5, 9, 12, 14, 16, 18, 19, 20}
    assert ascent._checkpoints(1) == {1}
