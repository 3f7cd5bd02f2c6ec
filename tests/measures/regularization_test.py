"""The regularization term by hand, at both points, in both forms."""

import functools

import numpy as np
import pytest

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import hessian_products
from qgen_tf.measures.regularization import regularization
from qgen_tf.quantization import BitScheme, quantize_model
from tests.measures import closed_forms

layers = keras.layers
CURVATURES = ("hessian", "gauss_newton")
# one input is on at a time: the Hessian is diagonal, 9 / 4 for each weight of
# the quadratic loss, and both estimates are exact in every probe
IMAGES = 3 * np.eye(4, dtype=np.float32)
KERNEL = np.array([[1, 2], [-3, 4], [0, 0], [-1, 1]], np.float32) / 4
SCHEME = BitScheme(3, 32, overrides=(("*", 3, 32),))


def _dataset():
    return closed_forms.dataset(IMAGES, np.zeros(4, np.int64), batch_size=1)


def _term(model, **settings):
    return regularization(
        model,
        _dataset(),
        closed_forms.quadratic,
        **{"num_probes": 2, **settings},
    )


@pytest.mark.parametrize("point", ["deployed", "latent"])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_by_hand(curvature, point):
    network = quantize_model(closed_forms.network(KERNEL), SCHEME)
    before = [value.tobytes() for value in network.get_weights()]
    result = _term(network, curvature=curvature, point=point)
    assert [value.tobytes() for value in network.get_weights()] == before
    # a step of max|w| / 3; the two weights of zero have no noise
    truth = 6 * (1 / 3) ** 2 / 24 * 9 / 4
    assert result.name == f"regularization_{curvature}"
    assert result.value == pytest.approx(truth, rel=1e-5)
    assert result.standard_error < 1e-6 * truth
    assert result.unit == "nats"
    assert result.details["layers"] == {
        "dense0": pytest.approx(truth, rel=1e-5)
    }
    assert result.details["predicted_noise_power"] == pytest.approx(
        6 * (1 / 3) ** 2 / 12, rel=1e-5
    )


@pytest.mark.parametrize(
    ("num_bits", "step_rule", "width", "noisy"),
    [
        (8, "lsq", 1 / 127, 6),
        (8, "minmax", 1 / 127, 6),
        # Q = 1: 2 mean|w| = 3/4 is below max|w| = 1
        (2, "lsq", 3 / 4, 6),
        (2, "minmax", 1.0, 6),
        # one bit has no zero, and two steps a bin
        (1, "lsq", 2 * 3 / 8, 8),
        (1, "minmax", 2 * 3 / 8, 8),
    ],
)
def test_of_a_float_model_at_bits_that_it_does_not_have(
    num_bits, step_rule, width, noisy
):
    result = _term(
        closed_forms.network(KERNEL), num_bits=num_bits, step_rule=step_rule
    )
    assert result.value == pytest.approx(
        noisy * width**2 / 24 * 9 / 4, rel=1e-5
    )


def _convolutions():
    inputs = layers.Input([6, 6, 2])
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    norm = layers.BatchNormalization(name="norm")
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.ReLU()(norm(x)))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    gamma, variance = np.array([[2, -3, 0.5, 1], [4, 0.25, 1, 2]])
    norm.set_weights([gamma, np.full(4, 0.3), np.full(4, 0.1), variance])
    return model


def _images():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(24, 6, 6, 2)).astype(np.float32)
    return closed_forms.dataset(images, generator.integers(3, size=24), 12)


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("is_float", [True, False])
def test_folding_batch_norm_changes_nothing(curvature, is_float):
    model, settings = _convolutions(), {"num_bits": 4, "step_rule": "minmax"}
    if not is_float:
        # no weight is clipped: the straight-through slope is one everywhere
        scheme = BitScheme(4, 32, 4, quantizer="minmax")
        model, settings = quantize_model(model, scheme), {}
    deployed, latent = (
        regularization(
            model,
            _images(),
            curvature=curvature,
            point=point,
            num_probes=40,
            **settings,
        )
        for point in ("deployed", "latent")
    )
    assert list(deployed.details["layers"])[:2] == ["conv", "depthwise"]
    error = np.hypot(deployed.standard_error, latent.standard_error)
    assert 0 < error < 0.3 * deployed.value
    assert abs(deployed.value - latent.value) < 4 * error
    if curvature == "gauss_newton":
        # the signs are those of the outputs: the same for both
        assert latent.value == pytest.approx(deployed.value, rel=1e-4)


def test_both_forms_agree_where_layers_are_piecewise_linear():
    hessian, gauss_newton = (
        regularization(
            _convolutions(),
            _images(),
            curvature=curvature,
            num_bits=4,
            num_probes=40,
        )
        for curvature in CURVATURES
    )
    error = np.hypot(hessian.standard_error, gauss_newton.standard_error)
    assert 0 < error < 0.3 * gauss_newton.value
    assert abs(hessian.value - gauss_newton.value) < 4 * error
    total = sum(hessian.details["layers"].values())
    assert total == pytest.approx(hessian.value, rel=1e-9)


def test_it_grows_with_the_square_of_the_bin_width():
    model = _convolutions()
    values = {
        bits: regularization(
            model,
            _images(),
            curvature="gauss_newton",
            num_bits=bits,
            step_rule="minmax",
        ).value
        for bits in (8, 4)
    }
    # the reach of the weights over the largest level
    assert values[4] == pytest.approx(values[8] * (127 / 7) ** 2, rel=1e-4)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_standard_error_is_the_spread_over_seeds(curvature):
    model = quantize_model(_convolutions(), BitScheme(4, 32, 4))
    dataset = _images()
    with sharing.shared():
        results = [
            regularization(
                model,
                dataset,
                curvature=curvature,
                num_probes=4,
                seed=seed,
            )
            for seed in range(16)
        ]
    values = [result.value for result in results]
    assert len(set(values)) == len(values)
    error = np.mean([result.standard_error for result in results])
    # 16 seeds know the spread to 18 %
    assert np.std(values, ddof=1) == pytest.approx(error, rel=0.5)


def test_layers_without_a_grid_and_without_interest_have_no_term():
    model = quantize_model(
        _convolutions(), BitScheme(4, 32, overrides=(("depthwise", 32, 32),))
    )
    settings = {"curvature": "gauss_newton", "num_probes": 2}
    both = regularization(model, _images(), **settings)
    assert [*both.details["layers"]][:1] == ["conv"]
    assert len(both.details["layers"]) == 2
    first = regularization(
        model,
        _images(),
        variables=lambda network: network.trainable_weights[:1],
        **settings,
    )
    assert first.details["layers"] == {
        "conv": pytest.approx(both.details["layers"]["conv"], rel=1e-4)
    }


def test_a_measure_of_each_form_can_be_repeated_from_its_record():
    measure = functools.partial(regularization, curvature="gauss_newton")
    network = closed_forms.network(KERNEL)
    result = measure(
        network,
        closed_forms.dataset(IMAGES, [0, 1, 0, 1]),
        num_bits=3,
        step_rule="minmax",
        seed=4,
        num_probes=3,
    )
    assert result.name == "regularization_gauss_newton"
    again = measure(
        network,
        closed_forms.dataset(IMAGES, [0, 1, 0, 1]),
        **result.settings,
    )
    assert again == result


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no weight on a grid among .* say num_bits"),
        ({"num_bits": 9}, "weight_bits is 9"),
        ({"num_bits": 4, "step_rule": "dorefa"}, "'dorefa' is unknown"),
        ({"num_bits": 4, "curvature": "fisher"}, "not 'fisher' and 2"),
        ({"num_bits": 4, "num_probes": 1}, "not 'hessian' and 1"),
        ({"num_bits": 4, "point": "float"}, "'float' is not one of"),
        ({"num_bits": 4, "variables": lambda _: []}, "among those that are"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        _term(closed_forms.network(KERNEL), **settings)


def test_models_that_do_not_fit_the_settings():
    quantized = quantize_model(closed_forms.network(KERNEL), SCHEME)
    with pytest.raises(errors.ModelError, match="quantized already"):
        _term(quantized, num_bits=4)
    inputs = layers.Input([6, 6, 2])
    x = layers.SeparableConv2D(3, 3, name="pair")(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    settings = {"curvature": "gauss_newton", "num_bits": 4, "num_probes": 2}
    with pytest.raises(errors.ModelError, match='use point="deployed"'):
        regularization(model, _images(), point="latent", **settings)
    assert regularization(model, _images(), **settings).value > 0


def test_a_loss_without_a_second_derivative():
    with pytest.raises(errors.ModelError, match="no second derivative"):
        regularization(
            closed_forms.network(KERNEL),
            _dataset(),
            closed_forms.linear,
            num_bits=4,
        )


def test_nothing_moves_when_it_is_interrupted(monkeypatch):
    network = quantize_model(closed_forms.network(KERNEL), SCHEME)
    before = [value.tobytes() for value in network.get_weights()]

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(hessian_products, "random_signs", stop)
    with pytest.raises(KeyboardInterrupt):
        _term(network, point="latent")
    assert [value.tobytes() for value in network.get_weights()] == before
