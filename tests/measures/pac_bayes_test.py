"""PAC-Bayes sigma of classifiers whose accuracy under noise is known."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from qgen_tf import errors
from qgen_tf.measures import objective, perturbations, shared
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.measures.pac_bayes import pac_bayes_sigma
from qgen_tf.quantization import BitScheme, quantize_model
from tests.measures import closed_forms, unit_classifiers

COUNT = 200
FIXED = {"relative_error": 1.0}  # no more draws than num_samples


def _equal(weight=1.0):
    """A network, and its data: each example needs noise < weight."""
    return (
        unit_classifiers.network(np.full(COUNT, weight, np.float32)),
        unit_classifiers.dataset(COUNT),
    )


def _deviation(drop):
    """The standard deviation at which noise exceeds 1 with that frequency."""
    return -1 / scipy.stats.norm.ppf(drop)


@pytest.mark.parametrize(
    "weight, drop, settings, truth",
    [
        (1.0, 0.1, {}, _deviation(0.1)),
        (0.1, 0.2, {}, 0.1 * _deviation(0.2)),
        # blind to the size of the weights
        (0.1, 0.1, {"adaptive": True, "epsilon": 0.0}, _deviation(0.1)),
        # variances add up
        (
            1.0,
            0.1,
            {"adaptive": True, "epsilon": 0.5},
            (_deviation(0.1) ** 2 - 0.5**2) ** 0.5,
        ),
        # the published code: sigma^2 (w^2) (+ epsilon^2) as the deviation
        (0.1, 0.1, {"compat": "dziugaite2020"}, (0.1 * _deviation(0.1)) ** 0.5),
        (
            1.0,
            0.1,
            {"compat": "dziugaite2020", "adaptive": True, "epsilon": 0.5},
            (_deviation(0.1) - 0.5**2) ** 0.5,
        ),
    ],
)
def test_closed_form(weight, drop, settings, truth):
    result = pac_bayes_sigma(*_equal(weight), target_drop=drop, **settings)
    # and 0.5 % for the line between two scales
    assert abs(result.value - truth) < 4 * result.standard_error + 0.005 * truth
    assert 0 < result.standard_error <= 0.03 * result.value
    assert result.converged is True
    assert result.unit == ("|weight|" if "adaptive" in settings else "weight")
    assert result.details["accuracy"] == 1.0
    assert result.details["num_weights"] == COUNT
    assert result.details["drop"] == drop
    assert result.details["hit_bound"] is None


def test_standard_error_is_the_spread_over_seeds():
    model, dataset = _equal()
    with shared():
        results = [
            pac_bayes_sigma(model, dataset, seed=seed, num_samples=5, **FIXED)
            for seed in range(24)
        ]
    values = [result.value for result in results]
    error = np.mean([result.standard_error for result in results])
    # 24 seeds know the spread to 15 %
    assert np.std(values, ddof=1) == pytest.approx(error, rel=0.5)
    assert np.mean(values) == pytest.approx(
        _deviation(0.1), abs=4 * error / 24**0.5 + 0.005
    )


def test_the_same_seed_gives_the_same_draws():
    first, second, other = (
        pac_bayes_sigma(*_equal(), seed=seed, num_samples=3, **FIXED)
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first.value != other.value
    # to every model: these scale with the weights
    double = pac_bayes_sigma(
        *_equal(2.0), seed=0, num_samples=3, bounds=(2e-6, 4.0), **FIXED
    )
    assert double.value == pytest.approx(2 * first.value, rel=1e-5)


def _taught(count=4000):
    """A network of two layers that is right on all of its examples."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(count, 5)).astype(np.float32)
    network = closed_forms.network(
        generator.normal(size=(5, 64)).astype(np.float32),
        generator.normal(size=(64, 4)).astype(np.float32),
    )
    labels = network.predict(images, verbose=0).argmax(axis=-1)
    # by class, so that neighbours are not a random sample
    order = np.argsort(labels, kind="stable")
    return network, closed_forms.dataset(images[order], labels[order], 1000)


def _by_brute_force(model, dataset, adaptive, num_draws=30):
    """Sigma and its error: every draw on all data, at every step."""
    with perturbations.neighbourhood(
        model,
        dataset,
        cross_entropy,
        point="deployed",
        variables=perturbations.kernels,
    ) as near:

        def drops(log_sigma):
            noises = (
                perturbations.gaussian(
                    near.originals, seed=99, draw=draw, adaptive=adaptive
                )
                for draw in range(num_draws)
            )
            accuracies = [
                near.at(noise, np.exp(log_sigma))[1] for noise in noises
            ]
            return near.accuracy - np.array(accuracies)

        log_sigma = scipy.optimize.brentq(
            lambda log_sigma: drops(log_sigma).mean() - 0.1, -6, 1, xtol=0.01
        )
        slope = drops(log_sigma + 0.1).mean() - drops(log_sigma - 0.1).mean()
        error = drops(log_sigma).std(ddof=1) / num_draws**0.5 / (slope / 0.2)
        return np.exp(log_sigma), np.exp(log_sigma) * error


@pytest.mark.parametrize("adaptive", [False, True])
def test_agrees_with_brute_force_in_a_sixth_of_the_passes(
    adaptive, monkeypatch
):
    model, dataset = _taught()
    truth, error = _by_brute_force(model, dataset, adaptive)
    evaluate, seen = objective.Objective.__call__, []

    def counted(self):
        seen.append(self.num_examples)
        return evaluate(self)

    monkeypatch.setattr(objective.Objective, "__call__", counted)
    result = pac_bayes_sigma(
        model, dataset, adaptive=adaptive, epsilon=0.0, **FIXED
    )
    both = np.hypot(result.standard_error, error)
    assert abs(result.value - truth) < 3 * both
    assert both < 0.2 * truth
    # 15 steps with 10 draws each take 150
    assert result.details["num_draws"] == 10
    assert result.details["num_passes"] < 150 / 6
    # one more is that of the accuracy without noise
    assert sum(seen) / 4000 == pytest.approx(
        1 + result.details["num_passes"], rel=1e-12
    )


@pytest.mark.parametrize("examples_per_draw", [100, 2001, 10**6])
def test_parts_of_the_data_are_as_good_as_all(examples_per_draw):
    model, dataset = _taught()
    results = [
        pac_bayes_sigma(
            model,
            dataset,
            seed=seed,
            num_samples=20,
            examples_per_draw=size,
            **FIXED,
        )
        for seed, size in enumerate((examples_per_draw, 500))
    ]
    errors_ = [result.standard_error for result in results]
    gap = results[0].value - results[1].value
    assert abs(gap) < 3 * np.hypot(*errors_)
    # sorted data are mixed: or else it would be several times larger
    assert 0.5 < errors_[0] / errors_[1] < 2


def test_adaptive_is_blind_to_a_rescaling_of_relu_layers():
    model, dataset = _taught(400)
    first, second = model.get_weights()
    rescaled = closed_forms.network(first * 8, second / 8)
    values = [
        pac_bayes_sigma(
            network, dataset, adaptive=adaptive, epsilon=1e-30, **FIXED
        ).value
        for adaptive in (True, False)
        for network in (model, rescaled)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[3] < 0.7 * values[2]


def test_at_both_points_of_a_quantized_network():
    # levels -1, 0 and 1, and a step size of 1
    weights = np.ones(COUNT, np.float32)
    weights[0] = -1
    model = quantize_model(
        unit_classifiers.network(weights), BitScheme(2, 32, 2)
    )
    deployed, latent = (
        pac_bayes_sigma(model, unit_classifiers.dataset(COUNT), point=point)
        for point in ("deployed", "latent")
    )
    assert deployed.value == pytest.approx(_deviation(0.1), rel=0.1)
    # as a latent weight it is wrong from 0 on or from half a step, whatever
    # rounding does there
    assert latent.value != deployed.value
    assert latent.settings["point"] == "latent"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_weights_return_after_an_error(error, monkeypatch):
    model, dataset = _taught(400)
    before = [value.tobytes() for value in model.get_weights()]
    evaluate, calls = objective.Objective.__call__, []

    def failing(self):
        calls.append(model.get_weights()[0].tobytes())
        if len(calls) == 5:
            raise error
        return evaluate(self)

    monkeypatch.setattr(objective.Objective, "__call__", failing)
    with pytest.raises(error):
        pac_bayes_sigma(model, dataset, point="latent")
    assert calls[-1] != before[0]
    assert [value.tobytes() for value in model.get_weights()] == before


@pytest.mark.parametrize(
    "bounds, hit", [((1e-4, 0.01), "high"), ((10.0, 20.0), "low")]
)
def test_an_answer_out_of_bounds_is_the_bound_and_not_converged(bounds, hit):
    result = pac_bayes_sigma(*_equal(), bounds=bounds)
    assert result.converged is False
    assert result.value == bounds[hit == "high"]
    assert result.details["hit_bound"] == hit
    assert result.settings["bounds"] == list(bounds)


def test_epsilon_alone_that_costs_more_than_the_target():
    result = pac_bayes_sigma(*_equal(), adaptive=True, epsilon=1.0)
    assert result.converged is False
    assert result.details["hit_bound"] == "low"
    assert result.details["drop"] == pytest.approx(0.159, abs=0.03)


def test_too_few_draws_are_not_converged():
    result = pac_bayes_sigma(
        *_equal(), num_samples=2, max_samples=3, relative_error=1e-3
    )
    assert result.converged is False
    assert result.details["hit_bound"] is None
    assert result.details["num_draws"] == 3


def test_a_model_without_accuracy_to_lose():
    model, dataset = _equal(-1.0)
    result = pac_bayes_sigma(model, dataset)
    assert result.details["accuracy"] == 0.0
    assert result.converged is False
    assert result.value == 2.0
    assert result.details["hit_bound"] == "high"


def test_overflow_counts_as_lost_accuracy():
    model, dataset = _taught(400)
    narrow, wide = (
        pac_bayes_sigma(model, dataset, bounds=(1e-3, high), **FIXED)
        for high in (2.0, 1e30)
    )
    assert wide.converged is narrow.converged is True
    assert wide.value == pytest.approx(narrow.value, rel=0.02)


def test_a_model_that_has_diverged():
    with pytest.raises(errors.ModelError, match="diverged"):
        pac_bayes_sigma(*_equal(float("nan")))


@pytest.mark.parametrize(
    "settings",
    [
        {"bounds": (0.0, 1.0)},
        {"bounds": (1.0, 0.5)},
        {"bounds": (1.0, float("inf"))},
        {"bounds": (1.0, float("nan"))},
        {"target_drop": 0.0},
        {"target_drop": 1.0},
        {"target_drop": float("nan")},
        {"epsilon": -1e-3},
        {"num_samples": 1},
        {"num_samples": 5, "max_samples": 4},
        {"relative_error": 0.0},
        {"examples_per_draw": 0},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="pac_bayes_sigma needs"):
        pac_bayes_sigma(*_equal(), **settings)


def test_an_unknown_compat():
    with pytest.raises(errors.ConfigError, match="'jiang'"):
        pac_bayes_sigma(*_equal(), compat="jiang")
