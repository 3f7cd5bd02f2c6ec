"""The bound by hand, where the largest loss in a ball is known."""

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.measures import bound as module
from qgen_tf.measures.bound import complexity, generalization_bound
from qgen_tf.quantization import BitScheme, inference_model, quantize_model
from tests.measures import closed_forms

# each of 5 inputs is on in turn: L = |w|^2 / 2 for the quadratic loss, which
# a step along w raises most
IMAGES = 5**0.5 * np.eye(5, dtype=np.float32)
KERNEL = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
SCHEME = BitScheme(3, 32, overrides=(("*", 3, 32),))
SETTINGS = {
    "num_weights": 100,
    "num_train": 1000,
    "weight_norm": 10.0,
    "rho": 1.0,
    "delta": 0.05,
}


def _dataset():
    return closed_forms.dataset(IMAGES, np.zeros(5, np.int64), 5)


def _bound(model, **settings):
    return generalization_bound(
        model, _dataset(), closed_forms.quadratic, **settings
    )


def _quantized():
    return quantize_model(closed_forms.network(KERNEL), SCHEME)


def test_complexity_by_hand():
    # sqrt(log(1000) / 100) = 0.262826, 1.262826^2 = 1.594729,
    # 100 log(160.4729) = 507.8125, 4 log(20000) = 39.6140,
    # 8 log(6300) = 69.9856; 617.4121 / 999 = 0.618030
    assert complexity(**SETTINGS) == pytest.approx(0.786149, abs=2e-6)
    # 4 log(2) + 8 log(15) = 24.4370, with nothing from weights of zero
    assert complexity(
        num_weights=1, num_train=2, weight_norm=0.0, rho=1.0, delta=1 - 1e-12
    ) == pytest.approx(24.4370**0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rho", [4.0, 1.0, 0.1]),
        ("weight_norm", [0.0, 1.0, 100.0]),
        ("delta", [0.5, 0.05, 1e-6]),
        ("num_train", [60_000, 1000, 50]),
        ("num_weights", [10, 100, 10_000_000]),
    ],
)
def test_complexity_rises_as_theory_has_it(name, values):
    found = [complexity(**{**SETTINGS, name: value}) for value in values]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_weights", 0),
        ("num_train", 1),
        ("rho", 0.0),
        ("rho", float("nan")),
        ("delta", 0.0),
        ("delta", 1.0),
    ],
)
def test_complexity_out_of_range(name, value):
    with pytest.raises(errors.ConfigError, match="complexity needs"):
        complexity(**{**SETTINGS, name: value})


def test_both_terms_on_a_loss_whose_maximum_is_known():
    model = _quantized()
    before = [value.tobytes() for value in model.get_weights()]
    result = _bound(model)
    assert [value.tobytes() for value in model.get_weights()] == before
    (grid,) = inference_model(model).weight_grids.values()
    rho = np.linalg.norm(grid.latent - grid.values)
    norm = np.linalg.norm(grid.values)
    assert result.details["rho"] == pytest.approx(rho, rel=1e-5)
    assert result.details["weight_norm"] == pytest.approx(norm, rel=1e-5)
    assert result.details["num_weights"] == 20
    assert result.details["num_train"] == 5
    assert result.details["loss"] == pytest.approx(norm**2 / 2, rel=1e-5)
    assert result.details["max_loss"] == pytest.approx(
        (norm + rho) ** 2 / 2, rel=1e-3
    )
    second = complexity(
        num_weights=20, num_train=5, weight_norm=norm, rho=rho, delta=0.05
    )
    assert result.details["complexity"] == pytest.approx(second, rel=1e-5)
    assert result.value == pytest.approx(
        result.details["max_loss"] + result.details["complexity"]
    )
    assert (result.name, result.unit) == ("generalization_bound", "nats")


def test_fewer_bits_raise_the_first_term_and_lower_the_second():
    results = [
        _bound(closed_forms.network(KERNEL), num_bits=bits).details
        for bits in (8, 4, 2)
    ]
    rhos = [details["rho"] for details in results]
    assert rhos == sorted(rhos)
    losses = [details["max_loss"] for details in results]
    assert losses == sorted(losses)
    second = [details["complexity"] for details in results]
    assert second == sorted(second, reverse=True)
    assert len({*rhos, *losses, *second}) == 9


def test_at_the_latent_point_the_noise_is_the_same():
    deployed, latent = (
        _bound(_quantized(), point=point).details
        for point in ("deployed", "latent")
    )
    assert latent["rho"] == pytest.approx(deployed["rho"], rel=1e-6)
    norm = np.linalg.norm(KERNEL)
    assert latent["weight_norm"] == pytest.approx(norm, rel=1e-6)
    # the loss under a live quantizer is that of the grid point
    assert latent["loss"] == pytest.approx(deployed["loss"], rel=1e-5)


def test_settings_change_it_and_repeat_it():
    model = closed_forms.network(KERNEL)
    results = [
        _bound(model, num_bits=4, num_steps=2, **settings)
        for settings in (
            {},
            {"num_train": 50_000},
            {"delta": 1e-6},
            {"step_rule": "minmax"},
            {"num_restarts": 2, "seed": 1},
        )
    ]
    assert results[1].details["num_train"] == 50_000
    values = [result.value for result in results]
    assert values[1] < values[0] < values[2]
    assert len(set(values[:4])) == 4
    for result in results:
        assert _bound(model, **result.settings) == result


def test_only_the_chosen_variables_count():
    model = closed_forms.network(KERNEL, np.eye(4, dtype=np.float32))
    details = _bound(
        model,
        num_bits=4,
        variables=lambda network: network.trainable_weights[:1],
    ).details
    assert details["num_weights"] == 20
    assert details["weight_norm"] == pytest.approx(np.linalg.norm(KERNEL))


@pytest.mark.parametrize(
    "settings",
    [
        {"delta": 0.0},
        {"delta": 1.0},
        {"num_steps": 0},
        {"num_restarts": 0},
        {"num_train": 1},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="generalization_bound needs"):
        _bound(_quantized(), **settings)


def test_a_float_model_has_no_noise_of_its_own():
    with pytest.raises(errors.ConfigError, match="say num_bits"):
        _bound(closed_forms.network(KERNEL))


def test_weights_on_their_grids_have_no_bound():
    kernel = np.sign(KERNEL)
    with pytest.raises(errors.ModelError, match="adds no noise"):
        _bound(closed_forms.network(kernel), num_bits=1)


def test_the_weights_come_back_when_it_is_interrupted(monkeypatch):
    model = _quantized()
    before = [value.tobytes() for value in model.get_weights()]

    def stop(near, *args, **kwargs):
        near.move(near.originals)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "worst_offset", stop)
    with pytest.raises(KeyboardInterrupt):
        _bound(model, point="latent")
    assert [value.tobytes() for value in model.get_weights()] == before
