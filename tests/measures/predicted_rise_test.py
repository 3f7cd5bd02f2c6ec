"""The predicted rise in loss against what noise and rounding do."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures import predicted_rise as module
from qgen_tf.measures.predicted_rise import ALL_LAYERS, loss_rises
from qgen_tf.quantization import BitScheme, inference_model, quantize_model
from tests import harness
from tests.measures import closed_forms

GENERATOR = np.random.default_rng(1)
FIRST = GENERATOR.normal(size=(5, 4)).astype(np.float32)
SECOND = GENERATOR.normal(size=(4, 3)).astype(np.float32)
# one input is on at a time: both curvatures are exact in every probe
ONE_HOT = 5**0.5 * np.eye(5, dtype=np.float32)


def _one_hot():
    return closed_forms.dataset(ONE_HOT, np.zeros(5, np.int64), batch_size=1)


def _within(value, error, truth):
    assert 0 < error < 0.2 * abs(truth)
    assert abs(value - truth) < 4 * error


def test_a_quadratic_loss_is_predicted_at_any_bits():
    # L = |w|^2 / 2
    rows = loss_rises(
        closed_forms.network(FIRST),
        _one_hot(),
        closed_forms.quadratic,
        num_bits=(8, 2),
        step_rule="minmax",
        num_probes=2,
        num_draws=20,
    )
    assert [(row.layer, row.num_bits) for row in rows] == [
        ("dense0", 8),
        (ALL_LAYERS, 8),
        ("dense0", 2),
        (ALL_LAYERS, 2),
    ]
    reach = np.abs(FIRST).max()
    for row in rows:
        step = reach / (2 ** (row.num_bits - 1) - 1)
        truth = 20 * step**2 / 24
        assert row.step_size == pytest.approx(step, rel=1e-5)
        assert row.hessian == pytest.approx(truth, rel=1e-5)
        assert row.gauss_newton == pytest.approx(truth, rel=1e-5)
        assert max(row.hessian_error, row.gauss_newton_error) < 1e-5 * truth
        _within(row.simulated, row.simulated_error, truth)
        rounded = np.rint(FIRST / step) * step
        assert row.measured == pytest.approx(
            ((rounded**2).sum() - (FIRST**2).sum()) / 2, rel=1e-3
        )
        # the gradient is w, the variance of the noise s^2 / 12
        slope = (step**2 / 12 * (FIRST**2).sum()) ** 0.5
        assert row.noise_deviation == pytest.approx(slope, rel=0.5)


def test_layers_of_a_quantized_network():
    model = quantize_model(
        closed_forms.network(FIRST, SECOND),
        BitScheme(2, 32, overrides=(("dense0", 3, 32), ("dense1", 2, 32))),
    )
    dataset = closed_forms.dataset()
    with sharing.shared():
        network = perturbations.deployed_network(model).model
        before = [
            value.tobytes()
            for value in [*network.get_weights(), *model.get_weights()]
        ]
        settings = {"num_probes": 30, "num_draws": 3}
        first, second, both = loss_rises(
            model, dataset, closed_forms.quadratic, **settings
        )
        assert [both] == loss_rises(
            model,
            dataset,
            closed_forms.quadratic,
            layerwise=False,
            **settings,
        )
        after = [*network.get_weights(), *model.get_weights()]
        assert [value.tobytes() for value in after] == before
    assert (first.layer, first.num_bits) == ("dense0", 3)
    assert (second.layer, second.num_bits) == ("dense1", 2)
    assert (both.layer, both.num_bits) == (ALL_LAYERS, None)
    grids = inference_model(model).weight_grids

    def loss(dense0, dense1):
        hidden = np.maximum(closed_forms.IMAGES @ dense0, 0)
        return ((hidden @ dense1) ** 2).sum(axis=1).mean() / 2

    latent = loss(FIRST, SECOND)
    rounded = [grids["dense0"].values, grids["dense1"].values]
    for row, kernels in (
        (first, (rounded[0], SECOND)),
        (second, (FIRST, rounded[1])),
        (both, rounded),
    ):
        assert row.measured == pytest.approx(loss(*kernels) - latent, rel=1e-4)
    steps = [float(grids[name].step_size) for name in ("dense0", "dense1")]
    assert first.step_size == pytest.approx(steps[0])
    assert second.step_size == pytest.approx(steps[1])
    mean = (20 * steps[0] ** 2 + 12 * steps[1] ** 2) / 32
    assert both.step_size == pytest.approx(mean**0.5)
    # predictions add up, and are those at the weights before rounding
    for form in ("hessian", "gauss_newton"):
        parts = getattr(first, form) + getattr(second, form)
        assert getattr(both, form) == pytest.approx(parts, rel=1e-9)
    hidden = np.maximum(closed_forms.IMAGES @ FIRST, 0)
    _within(
        second.gauss_newton,
        second.gauss_newton_error,
        3 * (hidden**2).sum(axis=1).mean() * steps[1] ** 2 / 24,
    )


def test_a_kink_bends_the_loss_where_no_derivative_shows_it():
    # y = relu(a + 1/2) as a spreads over [-2, 2], and L = 4 y + y^2 / 2:
    # a derivative sees the bend of y^2 in the 5 / 8 that pass, but not the kink
    # at a = -1/2, where the density of a is 1/4
    spread = (np.arange(4096) + 0.5) / 1024 - 2
    images = np.stack([spread, np.ones(4096)], axis=1).astype(np.float32)

    def bowl(labels, outputs):
        del labels
        return 4 * outputs[:, 0] + outputs[:, 0] ** 2 / 2

    line = closed_forms.network(np.array([[1.0], [0.5]], np.float32))
    row, _ = loss_rises(
        keras.Model(line.input, keras.layers.ReLU()(line.output)),
        closed_forms.dataset(images, np.zeros(4096, np.int64), 4096),
        bowl,
        num_bits=(4,),
        num_probes=100,
        num_draws=100,
    )
    passing = spread[spread > -0.5]
    seen = (1 + passing**2).sum() / 4096
    hidden = 4 * (1 + 0.5**2) / 4
    step = row.step_size
    _within(row.hessian, row.hessian_error, step**2 / 24 * seen)
    _within(row.gauss_newton, row.gauss_newton_error, step**2 / 24 * seen)
    _within(row.simulated, row.simulated_error, step**2 / 24 * (seen + hidden))
    assert row.simulated > row.hessian + 4 * row.simulated_error


@pytest.mark.slow
def test_on_a_trained_network_it_holds_at_8_and_6_bits_and_breaks_at_2():
    images, labels = (part[:512] for part in harness.digits())
    rows = {
        row.num_bits: row
        for row in loss_rises(
            harness.trained(harness.residual),
            closed_forms.dataset(images, labels, 512),
            num_bits=(8, 6, 2),
            num_probes=40,
            num_draws=30,
        )
        if row.layer == ALL_LAYERS
    }
    for bits in (8, 6):
        row = rows[bits]
        assert row.simulated_error < 0.08 * row.simulated
        for prediction in (row.hessian, row.gauss_newton):
            assert prediction == pytest.approx(row.simulated, rel=0.2)
        # one rounding is one noise
        assert abs(row.measured - row.simulated) < 4 * row.noise_deviation
    row = rows[2]
    assert row.simulated_error < 0.15 * row.simulated
    for truth in (row.simulated, row.measured):
        assert truth > 1.5 * max(row.hessian, row.gauss_newton)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "say num_bits"),
        ({"num_bits": (4,), "num_draws": 1}, "not 1 and"),
        ({"num_bits": ()}, "at least one of num_bits"),
        ({"num_bits": (4,), "num_probes": 1}, "num_probes at least 2"),
        ({"num_bits": (4,), "step_rule": "pact"}, "'pact' is unknown"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        loss_rises(closed_forms.network(FIRST), _one_hot(), **settings)


def test_a_quantized_model_has_bits_of_its_own():
    model = quantize_model(closed_forms.network(FIRST), BitScheme(8, 32))
    with pytest.raises(errors.ModelError, match="quantized already"):
        loss_rises(model, _one_hot(), num_bits=(8,))


def test_a_loss_that_is_not_finite_with_noise():
    def cliff(labels, outputs):
        loss = closed_forms.quadratic(labels, outputs)
        return tf.where(tf.abs(outputs[:, 0]) > 2.5, np.inf, loss)

    # 2.2 without noise; the bins of one bit are 4.5 wide
    network = closed_forms.network(np.ones((5, 1), np.float32))
    with pytest.raises(errors.ModelError, match="dense0 .* to .1. bits"):
        loss_rises(network, _one_hot(), cliff, num_bits=(1,), num_probes=2)
    np.testing.assert_array_equal(network.get_weights()[0], 1.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_weights_come_back_when_it_is_interrupted(error, monkeypatch):
    model = closed_forms.network(FIRST)

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(module, "uniform_noise", stop)
    with sharing.shared():
        network = perturbations.deployed_network(model).model
        before = [value.tobytes() for value in network.get_weights()]
        with pytest.raises(error):
            loss_rises(
                model,
                _one_hot(),
                closed_forms.quadratic,
                num_bits=(4,),
                num_probes=2,
            )
        after = [value.tobytes() for value in network.get_weights()]
    assert after == before
