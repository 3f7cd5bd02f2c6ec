"""Largest eigenvalues, against Hessians that are written out."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import top_eigenvalues
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES
from tests.measures.explicit_hessian import softmax_hessian

_GENERATOR = np.random.default_rng(1)
FIRST = _GENERATOR.normal(size=(5, 4)).astype(np.float32)
SECOND = _GENERATOR.normal(size=(4, 3)).astype(np.float32)
WIDE = _GENERATOR.normal(size=(5, 7)).astype(np.float32)


def _second_moments():
    images = IMAGES.astype(np.float64)
    return images.T @ images / len(images)


def test_a_quadratic_has_those_of_the_second_moments():
    found = top_eigenvalues(
        closed_forms.network(WIDE),
        closed_forms.dataset(),
        closed_forms.quadratic,
        count=8,
        tolerance=1e-6,
    )
    # each of the five, once for each of seven columns
    wanted = np.linalg.eigvalsh(_second_moments())[::-1]
    np.testing.assert_allclose(found.values[:7], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(found.values[7], wanted[1], rtol=1e-5)


def test_softmax_regression_to_the_last_vector():
    kernel = WIDE[:, :4]
    found = top_eigenvalues(
        closed_forms.network(kernel),
        closed_forms.dataset(),
        count=3,
        tolerance=1e-6,
    )
    values, vectors = np.linalg.eigh(softmax_hessian(kernel))
    np.testing.assert_allclose(found.values, values[::-1][:3], rtol=1e-5)
    assert found.vectors.shape == (3, kernel.size)
    overlap = np.abs(np.sum(found.vectors * vectors.T[::-1][:3], axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-4)
    assert (found.residuals < 1e-4 * found.values).all()
    assert found.num_products >= 3


def test_the_largest_is_not_the_one_of_largest_magnitude():
    def saddle(labels, outputs):
        del labels
        return outputs[:, 0] ** 2 - 4 * outputs[:, 1] ** 2

    found = top_eigenvalues(
        closed_forms.network(WIDE[:, :2]), closed_forms.dataset(), saddle
    )
    wanted = 2 * np.linalg.eigvalsh(_second_moments()).max()
    np.testing.assert_allclose(found.values, [wanted], rtol=2e-3)


def test_a_residual_bounds_the_error():
    rough = top_eigenvalues(
        closed_forms.network(FIRST, SECOND),
        closed_forms.dataset(),
        count=2,
        tolerance=0.1,
    )
    exact = top_eigenvalues(
        closed_forms.network(FIRST, SECOND),
        closed_forms.dataset(),
        count=2,
        tolerance=1e-6,
        seed=7,
    )
    assert rough.num_products <= exact.num_products
    off = np.abs(rough.values - exact.values)
    assert (off <= rough.residuals + exact.residuals + 1e-6).all()


def test_of_weights_under_a_live_quantizer_and_deployed():
    model = quantize_model(closed_forms.network(FIRST, SECOND), BitScheme(8, 8))
    calibrate(model, closed_forms.dataset())
    before = [value.tobytes() for value in model.get_weights()]
    live = top_eigenvalues(model, closed_forms.dataset())
    assert [value.tobytes() for value in model.get_weights()] == before
    deployed = top_eigenvalues(
        inference_model(model).model, closed_forms.dataset()
    )
    real = top_eigenvalues(
        closed_forms.network(FIRST, SECOND), closed_forms.dataset()
    )
    np.testing.assert_allclose(live.values, real.values, rtol=0.05)
    np.testing.assert_allclose(deployed.values, real.values, rtol=0.05)


def test_one_result_for_one_seed():
    results = [
        top_eigenvalues(
            closed_forms.network(FIRST), closed_forms.dataset(), seed=seed
        )
        for seed in (0, 0, 1)
    ]
    assert results[0].values.tobytes() == results[1].values.tobytes()
    np.testing.assert_allclose(results[0].values, results[2].values, rtol=2e-3)


def test_fake_quant_operations_have_no_curvature():
    quantized = tfmot.quantization.keras.quantize_model(
        closed_forms.network(FIRST, SECOND)
    )
    quantized(IMAGES, training=True)
    with pytest.raises(errors.ModelError, match="no second derivative"):
        top_eigenvalues(quantized, closed_forms.dataset())


def test_eigenvalues_that_are_not_found():
    with pytest.raises(errors.ModelError, match="of 6 eigenvalues .* raise"):
        top_eigenvalues(
            closed_forms.network(WIDE, np.eye(7, dtype=np.float32)),
            closed_forms.dataset(),
            count=6,
            tolerance=1e-12,
            max_restarts=1,
        )


@pytest.mark.parametrize(
    "settings",
    [{"count": 0}, {"count": 20}, {"tolerance": 0.0}, {"max_restarts": 0}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="1 to 19 .* 20 weights"):
        top_eigenvalues(
            closed_forms.network(FIRST), closed_forms.dataset(), **settings
        )


def test_a_model_or_data_without():
    inputs = keras.Input([5])
    bare = keras.Model(inputs, keras.layers.ReLU()(inputs), name="bare")
    with pytest.raises(errors.ModelError, match="'bare' has no weight"):
        top_eigenvalues(bare, closed_forms.dataset())
    with pytest.raises(errors.DataError, match="empty"):
        top_eigenvalues(
            closed_forms.network(FIRST), closed_forms.dataset().take(0)
        )

    def root(labels, outputs):
        return tf.reduce_sum(tf.sqrt(tf.abs(outputs)), axis=-1)

    with pytest.raises(errors.ModelError, match="'net' are not finite"):
        top_eigenvalues(
            closed_forms.network(FIRST), closed_forms.dataset(0 * IMAGES), root
        )
