"""The twelve measures: what they share, what they need, what they keep."""

import functools
import math

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import search, shared
from qgen_tf.measures.jiang import jiang2020
from qgen_tf.measures.jiang_equations import Equation
from qgen_tf.quantization import BitScheme, quantize_model
from tests.measures import closed_forms, unit_classifiers

MEASURES = {
    name: functools.partial(
        jiang2020, noise=noise, form=form, adaptive=adaptive
    )
    for family, noise in (
        ("pac_bayes", "gaussian"),
        ("sharpness", "worst_case"),
    )
    for middle, adaptive in (("", False), ("_mag", True))
    for form in ("init", "orig", "flatness")
    for name in [f"{family}{middle}_{form}"]
}
COUNT = 100
CHEAP = {"num_steps": 2, "relative_error": 1.0}


def _trained():
    """A network with weights from 0 to 2, its data, and its start."""
    weights = np.linspace(0.01, 2, COUNT, dtype=np.float32)
    start = np.where(np.arange(COUNT) % 2, weights, -1.0)
    return (
        unit_classifiers.network(weights),
        unit_classifiers.dataset(COUNT),
        unit_classifiers.network(start),
    )


def test_all_twelve_take_four_searches(monkeypatch):
    calls = []
    find_crossing = search.find_crossing

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return find_crossing(*args, **kwargs)

    monkeypatch.setattr(search, "find_crossing", counted)
    model, dataset, initial = _trained()
    w, w0 = (
        net.get_weights()[0].astype(np.float64) for net in (model, initial)
    )
    with shared():
        results = {
            name: measure(model, dataset, initial=initial, **CHEAP)
            for name, measure in MEASURES.items()
        }
    assert len(calls) == 4
    squares = {"init": ((w - w0) ** 2).sum(), "orig": (w**2).sum()}
    for name, result in results.items():
        assert result.name == name
        assert result.converged is True
        assert result.settings["num_train"] == COUNT
        form = result.settings["form"]
        scale = result.details["alpha" if "sharp" in name else "sigma"]["value"]
        if form == "flatness":
            assert result.value == pytest.approx(1 / scale**2, rel=1e-12)
            assert "weight" in result.unit
        elif "mag" not in name:
            factor = math.log(2 * COUNT) if "sharp" in name else 1.0
            sigma = result.details["sigma"]["value"]
            value = squares[form] * factor / (4 * scale**2)
            value += math.log(COUNT / sigma) + 10
            assert result.value == pytest.approx(value, rel=1e-9)
            assert result.unit == "nats"
        published = result.details["reported_by_dziugaite2020"]
        assert published == pytest.approx((result.value / COUNT) ** 0.5)


def test_the_error_is_that_of_the_searches():
    model, dataset, initial = _trained()
    with shared():
        result = MEASURES["pac_bayes_init"](
            model, dataset, initial=initial, **CHEAP
        )
        flatness = MEASURES["pac_bayes_flatness"](model, dataset, **CHEAP)
    sigma = result.details["sigma"]
    # the derivative of the equation, of an error of some percent
    w, w0 = (net.get_weights()[0] for net in (model, initial))
    slope = -((w - w0) ** 2).sum() / (2 * sigma["value"] ** 3)
    slope -= 1 / sigma["value"]
    error = sigma["standard_error"]
    assert 0 < error < 0.1 * sigma["value"]
    assert result.standard_error == pytest.approx(-slope * error, rel=0.02)
    assert flatness.standard_error == pytest.approx(
        2 * error / sigma["value"] ** 3, rel=0.02
    )


def test_errors_of_two_searches_add_up_as_squares():
    model, dataset, initial = _trained()
    part = unit_classifiers.dataset(COUNT, batch_size=5)
    result = MEASURES["sharpness_init"](
        model, part, initial=initial, examples_per_draw=COUNT // 4, **CHEAP
    )
    alpha, sigma = (
        result.details[symbol]["standard_error"]
        / result.details[symbol]["value"]
        for symbol in ("alpha", "sigma")
    )
    assert 0 < alpha < 0.3
    term = result.value - 10
    term -= math.log(COUNT / result.details["sigma"]["value"])
    # to second order in alpha
    assert result.standard_error == pytest.approx(
        math.hypot(2 * term * alpha, sigma), rel=0.1
    )


def test_compat_reports_what_the_published_code_does():
    model, dataset, initial = _trained()
    settings = {"initial": initial, "compat": "dziugaite2020", **CHEAP}
    result = MEASURES["pac_bayes_init"](
        model, dataset, num_train=1000, **settings
    )
    plain = MEASURES["pac_bayes_init"](
        model, dataset, initial=initial, num_train=1000, **CHEAP
    )
    sigma = result.details["sigma"]["value"]
    # noise of standard deviation sigma^2; the same draws
    assert sigma**2 == pytest.approx(plain.details["sigma"]["value"], rel=0.01)
    w, w0 = (net.get_weights()[0] for net in (model, initial))
    value = ((w - w0) ** 2).sum() / (4 * sigma**2)
    value += math.log(1000 / sigma) + 10
    assert result.value == pytest.approx((value / 1000) ** 0.5, rel=1e-6)
    assert result.value == result.details["reported_by_dziugaite2020"]
    assert result.unit == "(nats)^(1/2)"
    relative = result.standard_error / result.value
    assert 0 < relative < 0.1
    with pytest.raises(errors.ConfigError, match="no sharpness_orig"):
        MEASURES["sharpness_orig"](model, dataset, **settings)


def test_norms_are_of_the_weights_that_get_noise():
    generator = np.random.default_rng(0)
    first = generator.normal(size=(5, 8)).astype(np.float32)
    second = generator.normal(size=(8, 3)).astype(np.float32)
    model = closed_forms.network(first, second)
    labels = model.predict(closed_forms.IMAGES, verbose=0).argmax(axis=-1)
    dataset = closed_forms.dataset(labels=labels)
    result = MEASURES["sharpness_orig"](
        model,
        dataset,
        variables=lambda network: [network.trainable_variables[-2]],
        **CHEAP,
    )
    alpha = result.details["alpha"]
    assert alpha["num_weights"] == result.details["sigma"]["num_weights"] == 24
    value = (second.astype(np.float64) ** 2).sum() * math.log(48)
    value /= 4 * alpha["value"] ** 2
    value += math.log(32 / result.details["sigma"]["value"]) + 10
    assert result.value == pytest.approx(value, rel=1e-6)


def _normed(factor):
    """A network whose BatchNorm undoes a factor of the weights before it."""
    generator = np.random.default_rng(1)
    inputs = keras.Input([5])
    dense = keras.layers.Dense(16, use_bias=False)
    norm = keras.layers.BatchNormalization(epsilon=1e-6)
    x = keras.layers.ReLU()(norm(dense(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(x))
    kernel = generator.normal(size=(5, 16)).astype(np.float32)
    dense.kernel.assign(kernel * factor)
    norm.moving_mean.assign(0.1 * factor * np.ones(16, np.float32))
    norm.moving_variance.assign(factor**2 * np.ones(16, np.float32))
    model.layers[-1].kernel.assign(generator.normal(size=(16, 3)))
    return model


@pytest.mark.parametrize("point", ["deployed", "latent"])
def test_a_rescaling_before_batch_norm(point):
    model = _normed(1.0)
    labels = model.predict(closed_forms.IMAGES, verbose=0).argmax(axis=-1)
    dataset = closed_forms.dataset(labels=labels)
    values = {}
    for factor in (1.0, 16.0):
        with shared():
            network, initial = _normed(factor), _normed(factor)
            initial.layers[-1].kernel.assign(
                2 * initial.layers[-1].kernel.numpy()
            )
            initial.layers[1].kernel.assign(-initial.layers[1].kernel.numpy())
            values[factor] = [
                measure(
                    network, dataset, initial=initial, point=point, **CHEAP
                ).value
                for measure in MEASURES.values()
            ]
    # up to epsilon of the norm, and single examples that rounding turns
    same = np.isclose(values[1.0], values[16.0], rtol=0.02)
    assert same.all() == (point == "deployed")


def test_the_initial_weights_are_those_on_their_grid():
    weights = np.where(np.arange(COUNT) % 2, 1.0, -1.0).astype(np.float32)
    weights[:10] = 0.2  # on a grid of -1, 0 and 1 that is 0
    start = quantize_model(
        unit_classifiers.network(weights), BitScheme(2, 32, 2)
    )
    ((latent, quantizer, variables),) = start.layers[-1]._weight_vars
    values = quantizer.grid(latent, variables).values
    assert not np.allclose(values, latent.numpy())
    model = quantize_model(
        unit_classifiers.network(np.ones(COUNT, np.float32)),
        BitScheme(2, 32, 2),
    )
    for point, w0 in (("deployed", values), ("latent", latent.numpy())):
        result = MEASURES["pac_bayes_init"](
            model,
            unit_classifiers.dataset(COUNT),
            initial=start,
            point=point,
            **CHEAP,
        )
        sigma = result.details["sigma"]["value"]
        value = result.value - 10 - math.log(COUNT / sigma)
        assert value * 4 * sigma**2 == pytest.approx(
            ((1 - w0) ** 2).sum(), rel=1e-4
        )


@pytest.mark.parametrize("name", MEASURES)
def test_what_needs_initial_weights_says_so(name):
    model, dataset, _ = _trained()
    needs = name.endswith("_init") or name.endswith("mag_orig")
    assert MEASURES[name].keywords["form"] in name
    if needs:
        with pytest.raises(errors.ConfigError, match=f"{name} needs the init"):
            MEASURES[name](model, dataset)
    else:
        settings = MEASURES[name].keywords
        assert not Equation(
            **settings, orig_denominator="init", epsilon=1e-3, delta=0.05
        ).needs_initial


def test_the_origin_needs_no_initial_weights():
    model, dataset, _ = _trained()
    result = MEASURES["pac_bayes_mag_orig"](
        model, dataset, orig_denominator="zero", **CHEAP
    )
    assert math.isfinite(result.value)
    assert result.settings["orig_denominator"] == "zero"


def test_other_initial_weights():
    model, dataset, _ = _trained()
    with pytest.raises(errors.ModelError, match="different shapes"):
        MEASURES["pac_bayes_init"](
            model, dataset, initial=unit_classifiers.network(np.ones(3))
        )


def test_a_search_without_an_answer_has_not_converged():
    model, dataset, initial = _trained()
    result = MEASURES["pac_bayes_init"](
        model, dataset, initial=initial, bounds=(1e-6, 1e-5), **CHEAP
    )
    assert result.converged is False
    assert result.details["sigma"]["hit_bound"] == "high"


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"noise": "uniform"}, "'uniform' is not one of"),
        ({"form": "zero"}, "'zero' is not one of"),
        ({"orig_denominator": "orig"}, "'orig' is not one of"),
        ({"epsilon": 0.0}, "epsilon > 0"),
        ({"delta": 1.0}, "delta in"),
        ({"num_train": 0}, "num_train"),
        ({"compat": "jiang"}, "'jiang'"),
    ],
)
def test_settings_out_of_range(settings, match):
    model, dataset, initial = _trained()
    with pytest.raises(errors.ConfigError, match=match):
        jiang2020(model, dataset, initial=initial, **settings)
