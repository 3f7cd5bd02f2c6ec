"""Spectral densities of Hessians that are written out."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.measures import shared
from qgen_tf.measures.density import spectral_density
from qgen_tf.measures.weights import of_layer
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES
from tests.measures.explicit_hessian import softmax_hessian

_GENERATOR = np.random.default_rng(1)
FIRST = _GENERATOR.normal(size=(5, 4)).astype(np.float32)
SECOND = _GENERATOR.normal(size=(4, 3)).astype(np.float32)


def _integral(density, values):
    return np.trapezoid(values, density.eigenvalues)


def test_a_diagonal_hessian_has_its_eigenvalues_as_nodes():
    # H is diag(1, 4, 9, 16, 25) / 5, once for each of four columns
    images = np.diag(np.arange(1, 6)).astype(np.float32)
    density = spectral_density(
        closed_forms.network(FIRST),
        closed_forms.dataset(images, np.zeros(5, np.int64)),
        closed_forms.quadratic,
        num_vectors=3,
    )
    eigenvalues = np.arange(1, 6) ** 2 / 5
    nodes = density.nodes.reshape(5, 3)
    np.testing.assert_allclose(
        nodes, np.repeat(eigenvalues[:, None], 3, axis=1), rtol=1e-5
    )
    # signs give each eigenvalue its exact share
    np.testing.assert_allclose(density.weights, 1 / 15, rtol=1e-4)
    assert density.num_products == 15
    assert density.num_weights == 20
    assert density.trace == pytest.approx(4 * eigenvalues.sum(), rel=1e-5)
    # all vectors agree
    assert density.standard_error.max() < 1e-2 * density.density.max()
    # five peaks of the same height and nothing in between
    spread = 0.003 * np.ptp(eigenvalues)
    peak = 1 / (5 * spread * np.sqrt(2 * np.pi))
    for value in eigenvalues:
        near = np.abs(density.eigenvalues - value) < spread
        assert density.density[near].max() == pytest.approx(peak, rel=0.05)
    between = np.abs(density.eigenvalues - 2.5) < 0.5
    assert density.density[between].max() < 1e-9 * peak


def test_integral_and_first_moment_against_the_explicit_hessian():
    network = closed_forms.network(FIRST)
    density = spectral_density(
        network, closed_forms.dataset(), num_vectors=40, num_steps=12
    )
    assert _integral(density, density.density) == pytest.approx(1, abs=1e-6)
    assert density.weights.sum() == pytest.approx(1, abs=1e-12)
    moment = _integral(density, density.density * density.eigenvalues)
    assert moment * 20 == pytest.approx(density.trace, rel=1e-6)
    truth = np.trace(softmax_hessian(FIRST))
    assert density.trace == pytest.approx(truth, rel=0.1)


def test_a_full_quadrature_has_all_the_moments_of_its_vector():
    # 20 steps on 20 weights: v' f(H) v = sum of weights f(nodes), exactly
    density = spectral_density(
        closed_forms.network(FIRST),
        closed_forms.dataset(),
        num_vectors=2,
        num_steps=200,
    )
    assert density.num_products <= 40
    eigenvalues = np.linalg.eigvalsh(softmax_hessian(FIRST))
    # each node of any weight is an eigenvalue, and the largest is found
    heavy = density.nodes[density.weights > 1e-4]
    gaps = np.abs(heavy[:, None] - eigenvalues).min(axis=1)
    assert gaps.max() < 1e-4 * eigenvalues.max()
    assert density.nodes.max() == pytest.approx(eigenvalues.max(), rel=1e-5)


def test_the_standard_error_is_the_spread_over_seeds():
    network, data = closed_forms.network(FIRST), closed_forms.dataset()
    with shared():  # one compilation
        densities = [
            spectral_density(
                network, data, num_vectors=4, num_steps=6, width=1.0, seed=seed
            )
            for seed in range(16)
        ]
        again = spectral_density(
            network, data, num_vectors=4, num_steps=6, width=1.0, seed=3
        )
    np.testing.assert_array_equal(again.density, densities[3].density)
    traces = [density.trace for density in densities]
    assert len(set(traces)) == 16
    middle = 1.0  # within the range of all of them
    values, deviations = (
        [
            np.interp(middle, density.eigenvalues, getattr(density, field))
            for density in densities
        ]
        for field in ("density", "standard_error")
    )
    # 16 seeds know the spread to 18 %, and each error comes of 4 vectors
    assert np.std(values, ddof=1) == pytest.approx(
        np.sqrt(np.mean(np.square(deviations))), rel=0.6
    )


def test_one_eigenvalue_only():
    images = 3 * np.eye(5, dtype=np.float32)
    density = spectral_density(
        closed_forms.network(FIRST),
        closed_forms.dataset(images, np.zeros(5, np.int64)),
        closed_forms.quadratic,
    )
    np.testing.assert_allclose(density.nodes, 9 / 5, rtol=1e-5)
    assert _integral(density, density.density) == pytest.approx(1, abs=1e-6)


def test_a_layer_of_its_own():
    network = closed_forms.network(FIRST, SECOND)
    before = [value.tobytes() for value in network.get_weights()]
    density = spectral_density(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        variables=of_layer("dense1"),
    )
    assert [value.tobytes() for value in network.get_weights()] == before
    hidden = np.maximum(IMAGES @ FIRST, 0).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(hidden.T @ hidden / 32)
    assert density.num_weights == 12
    assert density.nodes.max() == pytest.approx(eigenvalues.max(), rel=1e-4)
    assert density.nodes.min() == pytest.approx(
        eigenvalues.min(), abs=1e-4 * eigenvalues.max()
    )


def test_eigenvalues_below_zero_stay_there():
    def saddle(labels, outputs):
        del labels
        return outputs[:, 0] ** 2 - outputs[:, 1] ** 2

    density = spectral_density(
        closed_forms.network(FIRST[:, :2]), closed_forms.dataset(), saddle
    )
    largest = 2 * np.linalg.eigvalsh(IMAGES.T @ IMAGES / 32).max()
    assert density.nodes.min() == pytest.approx(-largest, rel=1e-4)
    assert density.nodes.max() == pytest.approx(largest, rel=1e-4)
    # as many weights, and so as many signs, on either side
    below = density.weights[density.nodes < 0].sum()
    assert below == pytest.approx(0.5, abs=1e-3)


def test_fake_quant_operations_have_no_curvature():
    quantized = tfmot.quantization.keras.quantize_model(
        closed_forms.network(FIRST, SECOND)
    )
    quantized(IMAGES, training=True)
    with pytest.raises(errors.ModelError, match="no second derivative in "):
        spectral_density(quantized, closed_forms.dataset())


@pytest.mark.parametrize(
    "settings",
    [{"num_vectors": 1}, {"num_steps": 1}, {"width": 0.0}, {"width": np.nan}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="spectral_density needs"):
        spectral_density(
            closed_forms.network(FIRST), closed_forms.dataset(), **settings
        )


def test_derivatives_that_are_not_finite():
    def root(labels, outputs):
        del labels
        return tf.reduce_sum(tf.sqrt(tf.abs(outputs)), axis=-1)

    network = closed_forms.network(FIRST)
    with pytest.raises(errors.ModelError, match="'net' are not finite"):
        spectral_density(network, closed_forms.dataset(0 * IMAGES), root)
    np.testing.assert_array_equal(network.get_weights()[0], FIRST)
