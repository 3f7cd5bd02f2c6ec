"""Worst-case sharpness of losses whose surroundings are known."""

import dataclasses
import json

import numpy as np
import pytest

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import ascent, perturbations
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.measures.objective import Objective
from qgen_tf.measures.worst_case import RADII, worst_case_sharpness
from qgen_tf.quantization import BitScheme, quantize_model
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES

KERNEL = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
RHO = 0.3
KINDS = sorted(RADII)


def _result(kernel=KERNEL, loss_fn=closed_forms.linear, **settings):
    return worst_case_sharpness(
        closed_forms.network(kernel),
        settings.pop("dataset", None) or closed_forms.dataset(),
        loss_fn,
        **{"rho": RHO, **settings},
    )


def _linear_rise(images, norm, adaptive):
    """The worst rise of the sum of y = x W: the dual norm of its slope."""
    slope = np.repeat(images.mean(axis=0)[:, None], 3, axis=1)
    if adaptive:
        slope = slope * KERNEL
    return RHO * np.linalg.norm(slope.ravel(), 2 if norm == "l2" else 1)


@pytest.mark.parametrize("norm, adaptive", KINDS)
def test_of_a_linear_loss_it_is_the_dual_norm_of_the_gradient(norm, adaptive):
    result = _result(norm=norm, adaptive=adaptive, num_steps=4)
    truth = _linear_rise(IMAGES, norm, adaptive)
    assert result.value == pytest.approx(truth, rel=1e-4)
    prefix = "adaptive_" if adaptive else ""
    assert result.name == f"{prefix}{norm}_sharpness"
    assert result.unit == "nats"
    assert result.standard_error == 0.0
    assert result.details["num_batches"] == 1
    assert result.details["num_passes"] == 5


def test_at_a_minimum_it_is_half_the_largest_eigenvalue():
    top = np.linalg.eigvalsh(IMAGES.T @ IMAGES / len(IMAGES))[-1]
    result = _result(0 * KERNEL, closed_forms.quadratic, num_steps=30)
    assert result.value == pytest.approx(RHO**2 * top / 2, rel=1e-3)


@pytest.mark.parametrize("adaptive", [False, True])
def test_in_a_box_every_weight_of_a_diagonal_quadratic_moves(adaptive):
    factors = np.array([1.0, 2.0, 0.5, 3.0], np.float32)
    curvature = factors**2 / 4
    kernel = KERNEL[:4, :1] * (1.0 if adaptive else 0.0)
    result = _result(
        kernel,
        closed_forms.quadratic,
        dataset=closed_forms.dataset(np.diag(factors), np.zeros(4, np.int64)),
        norm="linf",
        adaptive=adaptive,
    )
    truth = curvature.sum() * RHO**2 / 2
    if adaptive:
        # (w + rho w)^2 - w^2
        truth = (curvature * kernel[:, 0] ** 2).sum() * (RHO + RHO**2 / 2)
    assert result.value == pytest.approx(truth, rel=1e-5)


def test_m_sharpness_is_a_mean_over_batches():
    # in the order of the data, and across batches of 20; two are left over
    batches = [IMAGES[start : start + 5] for start in range(0, 30, 5)]
    rises = [_linear_rise(batch, "l2", False) for batch in batches]
    result = _result(m=5, num_steps=2)
    assert result.value == pytest.approx(np.mean(rises), rel=1e-4)
    error = np.std(rises, ddof=1) / 6**0.5
    assert result.standard_error == pytest.approx(error, rel=1e-3)
    assert result.details["num_batches"] == 6
    assert result.name == "l2_m_sharpness"
    # and of batches that are larger than those of the data set
    wide = _result(
        m=16, num_steps=2, dataset=closed_forms.dataset(batch_size=3)
    )
    rises = [_linear_rise(IMAGES[:16], "l2", False)]
    rises.append(_linear_rise(IMAGES[16:], "l2", False))
    assert wide.value == pytest.approx(np.mean(rises), rel=1e-4)


def test_the_smaller_the_batch_the_sharper():
    results = [
        _result(KERNEL, cross_entropy, m=m, num_steps=10)
        for m in (None, 32, 16, 8)
    ]
    values = [result.value for result in results]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert results[1].standard_error == 0.0
    assert np.all(np.diff(values[1:]) > 1e-3)
    assert values[0] > 1e-2


def test_of_error_counts_examples():
    # example i has the logits of row i, and is right by their difference
    margins = np.array([0.1, 0.3, 0.5, -0.2, 2.0], np.float32)
    kernel = np.stack([margins, 0 * margins], axis=1)
    settings = {
        "kernel": kernel,
        "loss_fn": cross_entropy,
        "dataset": closed_forms.dataset(
            np.eye(5, dtype=np.float32), np.zeros(5, np.int64)
        ),
        "norm": "linf",
        "rho": 0.2,
    }
    # both logits move by rho: two of five examples lose 0.4
    result = _result(**settings, of="error")
    assert result.value == pytest.approx(40.0)
    assert result.unit == "points"
    assert result.name == "linf_error_sharpness"
    assert result.details["accuracy"] == pytest.approx(0.8)
    truth = (
        np.log1p(np.exp(-(margins - 0.4))) - np.log1p(np.exp(-margins))
    ).mean()
    loss = _result(**settings)
    assert loss.value == pytest.approx(truth, rel=1e-4)
    assert loss.details == result.details
    assert loss.details["loss_rise"] == loss.value
    assert loss.details["error_rise"] == result.value
    # of single examples all are the worst: the same two
    single = _result(**settings, of="error", m=1)
    assert single.value == pytest.approx(40.0)
    error = 100 * np.std([1, 1, 0, 0, 0], ddof=1) / 5**0.5
    assert single.standard_error == pytest.approx(error)
    assert single.name == "linf_m_error_sharpness"


def test_loss_and_error_share_an_ascent(monkeypatch):
    calls = []
    original = ascent.worst_offset

    def counting(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(ascent, "worst_offset", counting)
    network, dataset = closed_forms.network(KERNEL), closed_forms.dataset()
    with sharing.shared():
        for of in ("loss", "error"):
            worst_case_sharpness(network, dataset, of=of, num_steps=2)
        assert len(calls) == 1
        worst_case_sharpness(network, dataset, num_steps=2, seed=1)
    assert len(calls) == 2


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_adaptive_is_blind_to_a_rescaling_of_layers(norm):
    generator = np.random.default_rng(1)
    first = generator.normal(size=(5, 8)).astype(np.float32)
    second = generator.normal(size=(8, 3)).astype(np.float32)
    values = {}
    for adaptive in (False, True):
        for factor in (1.0, 8.0):
            values[adaptive, factor] = worst_case_sharpness(
                closed_forms.network(first * factor, second / factor),
                closed_forms.dataset(),
                norm=norm,
                rho=0.1,
                adaptive=adaptive,
                num_steps=10,
            ).value
    assert values[True, 1.0] > 1e-2
    assert values[True, 8.0] == pytest.approx(values[True, 1.0], rel=1e-3)
    assert values[False, 8.0] > 2 * values[False, 1.0]


def _convolution(factor):
    """A convolution scaled by a factor that its BatchNorm takes out."""
    inputs = keras.Input([6, 6, 2])
    conv = keras.layers.Conv2D(4, 3, use_bias=False)
    norm = keras.layers.BatchNormalization()
    x = keras.layers.ReLU()(norm(conv(inputs)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(3)
    model = keras.Model(inputs, logits(x))
    generator = np.random.default_rng(0)
    conv.kernel.assign(factor * generator.normal(size=conv.kernel.shape))
    logits.kernel.assign(generator.normal(size=logits.kernel.shape))
    norm.gamma.assign(generator.uniform(0.5, 2.0, size=4))
    norm.moving_mean.assign(factor * generator.normal(size=4))
    variance = generator.uniform(0.5, 2.0, size=4)
    norm.moving_variance.assign(
        factor**2 * (variance + norm.epsilon) - norm.epsilon
    )
    return model


def test_rescaling_before_batch_norm_changes_nothing_that_is_deployed():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(16, 6, 6, 2)).astype(np.float32)
    dataset = closed_forms.dataset(images, generator.integers(3, size=16))
    values = {
        (point, factor): worst_case_sharpness(
            _convolution(factor),
            dataset,
            variables=lambda model: perturbations.kernels(model)[:1],
            point=point,
            num_steps=5,
        ).value
        for point in ("deployed", "latent")
        for factor in (1.0, 10.0)
    }
    assert values["deployed", 1.0] > 1e-2
    assert values["deployed", 10.0] == pytest.approx(
        values["deployed", 1.0], rel=1e-3
    )
    assert values["latent", 10.0] < 0.5 * values["latent", 1.0]


def test_points_of_a_2_bit_network():
    kernel = np.sign(KERNEL)  # levels -1, 0 and 1, and a step size of 1
    kernel[0] = 0
    network = quantize_model(closed_forms.network(kernel), BitScheme(2, 32, 2))
    settings = {"norm": "linf", "num_steps": 3}
    arguments = (network, closed_forms.dataset(), closed_forms.linear)
    deployed, latent, wide = (
        worst_case_sharpness(*arguments, point=point, rho=rho, **settings)
        for point, rho in (("deployed", 0.3), ("latent", 0.3), ("latent", 0.7))
    )
    slope = np.repeat(IMAGES.mean(axis=0)[:, None], 3, axis=1)
    truth = 0.3 * np.abs(slope).sum()
    assert deployed.value == pytest.approx(truth, rel=1e-4)
    # a live quantizer rounds all that is below half a step away
    assert latent.value == 0.0
    # and beyond it moves each weight by a step, inside of its range
    inside = np.abs(kernel + np.sign(slope)) <= 1
    assert wide.value == pytest.approx(np.abs(slope)[inside].sum(), rel=1e-4)
    assert wide.settings["point"] == "latent"


def test_weights_that_are_zero_stay_when_adaptive():
    kernel = KERNEL.copy()
    kernel[:, 1:] = 0
    result = _result(kernel, adaptive=True)
    slope = IMAGES.mean(axis=0) * kernel[:, 0]
    truth = RHO * np.linalg.norm(slope)
    assert result.value == pytest.approx(truth, rel=1e-4)


def test_only_the_chosen_variables_move():
    network = closed_forms.network(np.abs(KERNEL), np.eye(3, dtype=np.float32))
    images = np.abs(IMAGES)
    result = worst_case_sharpness(
        network,
        closed_forms.dataset(images),
        closed_forms.linear,
        variables=lambda model: model.trainable_weights[1:],
        point="latent",
        rho=RHO,
        num_steps=3,
    )
    slope = np.repeat((images @ np.abs(KERNEL)).mean(axis=0), 3)
    truth = RHO * np.linalg.norm(slope)
    assert result.value == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("point", ["deployed", "latent"])
@pytest.mark.parametrize("settings", [{}, {"m": 10, "num_restarts": 2}])
def test_a_result_can_be_repeated_from_its_record(settings, point):
    network, dataset = closed_forms.network(KERNEL), closed_forms.dataset()
    before = [value.tobytes() for value in network.get_weights()]
    result = worst_case_sharpness(
        network, dataset, point=point, num_steps=3, **settings
    )
    assert [value.tobytes() for value in network.get_weights()] == before
    text = json.dumps(dataclasses.asdict(result), allow_nan=False)
    record = json.loads(text)
    assert record["settings"]["rho"] == RADII["l2", False]
    again = worst_case_sharpness(network, dataset, **record["settings"])
    assert again == result


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_model_as_it_was(error, monkeypatch):
    network = closed_forms.network(KERNEL)
    gradient, seen = Objective.gradient, []

    def interrupted(self):
        seen.append(network.get_weights()[0])
        if len(seen) == 2:  # the first step is done
            raise error
        return gradient(self)

    monkeypatch.setattr(Objective, "gradient", interrupted)
    with pytest.raises(error):
        worst_case_sharpness(
            network, closed_forms.dataset(), closed_forms.linear, point="latent"
        )
    assert not np.array_equal(seen[-1], KERNEL)
    assert network.get_weights()[0].tobytes() == KERNEL.tobytes()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"norm": "l1"}, "'l1'"),
        ({"of": "accuracy"}, "'accuracy'"),
        ({"rho": 0.0}, "rho > 0, not 0.0"),
        ({"rho": float("nan")}, "not nan"),
        ({"rho": float("inf")}, "not inf"),
        ({"num_steps": 0}, "num_steps >= 1"),
        ({"num_restarts": 0}, "num_restarts >= 1"),
        ({"m": 0}, "m of at least 1"),
        ({"m": 33}, "m is 33, and the data set has 32"),
        ({"point": "dequantized"}, "'dequantized'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        _result(**settings)


@pytest.mark.parametrize("m", [None, 8])
def test_a_loss_that_is_not_finite(m):
    network = closed_forms.network(KERNEL)
    with pytest.raises(errors.ModelError, match="rho of 1e\\+30: choose"):
        worst_case_sharpness(
            network,
            closed_forms.dataset(),
            closed_forms.quadratic,
            rho=1e30,
            m=m,
        )
    np.testing.assert_array_equal(network.get_weights()[0], KERNEL)


def test_an_empty_data_set():
    with pytest.raises(errors.DataError, match="empty"):
        _result(dataset=closed_forms.dataset().take(0), m=2)
