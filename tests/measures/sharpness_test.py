"""Average sharpness of losses whose Hessian is known."""

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import average_sharpness
from qgen_tf.quantization import BitScheme, quantize_model
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES

KERNEL = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
SIGMA = 0.05
HESSIAN_DIAGONAL = np.repeat((IMAGES**2).mean(axis=0)[:, None], 3, axis=1)


@pytest.mark.parametrize("adaptive", [False, True])
def test_of_a_quadratic_is_half_the_trace_of_its_hessian(adaptive):
    weights = KERNEL**2 if adaptive else np.ones_like(KERNEL)
    truth = SIGMA**2 / 2 * (HESSIAN_DIAGONAL * weights).sum()
    result = average_sharpness(
        closed_forms.network(KERNEL),
        closed_forms.dataset(),
        closed_forms.quadratic,
        sigma=SIGMA,
        num_samples=80,
        adaptive=adaptive,
    )
    assert abs(result.value - truth) < 4 * result.standard_error
    assert 0 < result.standard_error < 0.1 * truth
    assert result.converged is True
    assert result.unit == "nats"


def test_the_gradient_cancels():
    network = closed_forms.network(KERNEL)
    result = average_sharpness(
        network,
        closed_forms.dataset(),
        closed_forms.linear,
        sigma=SIGMA,
        adaptive=False,
    )
    # one sign alone would move the loss by this, as a standard deviation
    one_sided = SIGMA * np.sqrt(3) * np.linalg.norm(IMAGES.mean(axis=0))
    assert one_sided > 1e-2
    assert abs(result.value) < 1e-6 * one_sided
    assert result.standard_error < 1e-6 * one_sided


def test_standard_error_is_the_spread_over_seeds():
    network, dataset = (
        closed_forms.network(KERNEL),
        closed_forms.dataset(batch_size=32),
    )
    results = [
        average_sharpness(
            network, dataset, closed_forms.quadratic, seed=seed, num_samples=8
        )
        for seed in range(24)
    ]
    values = [result.value for result in results]
    assert len(set(values)) == len(values)
    spread = np.std(values, ddof=1)
    error = np.mean([result.standard_error for result in results])
    # 24 seeds know the spread to 15 %
    assert spread == pytest.approx(error, rel=0.5)


def test_adaptive_is_blind_to_a_rescaling_of_layers():
    generator = np.random.default_rng(1)
    first = generator.normal(size=(5, 8)).astype(np.float32)
    second = generator.normal(size=(8, 3)).astype(np.float32)
    values = {}
    for adaptive in (False, True):
        for factor in (1.0, 8.0):
            values[adaptive, factor] = average_sharpness(
                closed_forms.network(first * factor, second / factor),
                closed_forms.dataset(),
                num_samples=5,
                adaptive=adaptive,
            ).value
    assert values[True, 1.0] > 1e-5
    assert values[True, 8.0] == pytest.approx(values[True, 1.0], rel=1e-3)
    assert values[False, 8.0] > 4 * values[False, 1.0]


def test_sigma_scales_a_quadratic_and_seed_repeats_it():
    network, dataset = closed_forms.network(KERNEL), closed_forms.dataset()

    def value(**settings):
        return average_sharpness(
            network, dataset, closed_forms.quadratic, num_samples=5, **settings
        ).value

    assert value(sigma=0.5) == value(sigma=0.5)
    assert value(sigma=0.5) == pytest.approx(4 * value(sigma=0.25), rel=1e-4)
    assert value(sigma=0.5, seed=1) != value(sigma=0.5)


def test_only_the_chosen_variables_get_noise():
    network = closed_forms.network(KERNEL, np.eye(3, dtype=np.float32))
    results = [
        average_sharpness(
            network,
            closed_forms.dataset(),
            closed_forms.linear,
            variables=lambda model, index=index: model.trainable_weights[
                index : index + 1
            ],
            adaptive=False,
            point="latent",
            sigma=SIGMA,
        )
        for index in (0, 1)
    ]
    # a ReLU bends in the first layer's weights, nothing in the second's
    assert results[0].value > 1e-4
    assert abs(results[1].value) < 1e-6


def test_points_of_a_2_bit_network():
    kernel = np.sign(KERNEL)  # levels -1, 0 and 1, and a step size of 1
    kernel[0] = 0
    network = quantize_model(closed_forms.network(kernel), BitScheme(2, 32, 2))
    settings = {"adaptive": False, "num_samples": 30}
    deployed = average_sharpness(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        sigma=SIGMA,
        **settings,
    )
    truth = SIGMA**2 / 2 * HESSIAN_DIAGONAL.sum()
    assert abs(deployed.value - truth) < 4 * deployed.standard_error
    assert deployed.settings["point"] == "deployed"
    # a live quantizer rounds all noise below half a step away
    latent = average_sharpness(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        sigma=SIGMA,
        point="latent",
        **settings,
    )
    assert latent.value == latent.standard_error == 0.0
    assert latent.settings["point"] == "latent"
    settings["num_samples"] = 10
    wide = average_sharpness(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        sigma=0.5,
        point="latent",
        **settings,
    )
    assert abs(wide.value) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"sigma": 0.0},
        {"sigma": -0.1},
        {"sigma": float("nan")},
        {"sigma": float("inf")},
        {"num_samples": 1},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="average_sharpness needs"):
        average_sharpness(
            closed_forms.network(KERNEL), closed_forms.dataset(), **settings
        )


def test_an_unknown_point():
    with pytest.raises(errors.ConfigError, match="'dequantized'"):
        average_sharpness(
            closed_forms.network(KERNEL),
            closed_forms.dataset(),
            point="dequantized",
        )


def test_a_model_without_kernels():
    inputs = keras.Input([5])
    model = keras.Model(inputs, keras.layers.ReLU()(inputs), name="bare")
    with pytest.raises(errors.ModelError, match="'bare' has no weight"):
        average_sharpness(model, closed_forms.dataset())


@pytest.mark.parametrize("sigma", [1e-2, 1e30])
def test_a_loss_that_is_not_finite(sigma):
    kernel = KERNEL.copy()
    if sigma < 1:
        kernel[0, 0] = np.nan
    network = closed_forms.network(kernel)
    with pytest.raises(errors.ModelError, match="diverged|choose a smaller"):
        average_sharpness(
            network, closed_forms.dataset(), closed_forms.quadratic, sigma=sigma
        )
    np.testing.assert_array_equal(network.get_weights()[0], kernel)


def test_an_empty_data_set():
    with pytest.raises(errors.DataError, match="empty"):
        average_sharpness(
            closed_forms.network(KERNEL), closed_forms.dataset().take(0)
        )
