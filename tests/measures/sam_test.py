"""The step of SAM and ASAM, worked out by hand."""

import dataclasses
import json

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.measures.sam import sam_sharpness
from qgen_tf.measures.worst_case import worst_case_sharpness
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES

KERNEL = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
RHO = 0.3
SECOND_MOMENT = (IMAGES.T @ IMAGES / len(IMAGES)).astype(np.float64)


def _result(kernel=KERNEL, loss_fn=closed_forms.quadratic, **settings):
    return sam_sharpness(
        closed_forms.network(kernel),
        closed_forms.dataset(),
        loss_fn,
        **{"rho": RHO, **settings},
    )


def _quadratic_rise(moment, adaptive=False, eta=0.0):
    """The rise of `tr(W' H W) / 2` after the step."""
    slope = moment @ KERNEL
    sizes = np.abs(KERNEL) + eta if adaptive else 1.0
    step = RHO * sizes**2 * slope / np.linalg.norm(sizes * slope)
    return (slope * step).sum() + (step * (moment @ step)).sum() / 2


@pytest.mark.parametrize(
    "adaptive, eta", [(False, 0.01), (True, 0.0), (True, 0.01), (True, 0.5)]
)
def test_of_a_quadratic_it_is_exact(adaptive, eta):
    result = _result(adaptive=adaptive, eta=eta)
    truth = _quadratic_rise(SECOND_MOMENT, adaptive, eta)
    assert result.value == pytest.approx(truth, rel=1e-5)
    assert result.name == ("asam_sharpness" if adaptive else "sam_sharpness")
    assert result.unit == "nats"
    assert result.standard_error == 0.0
    assert result.details["num_passes"] == 2


def test_of_a_linear_loss_it_is_the_worst_case():
    slope = np.repeat(IMAGES.mean(axis=0)[:, None], 3, axis=1)
    result = _result(loss_fn=closed_forms.linear)
    assert result.value == pytest.approx(RHO * np.linalg.norm(slope), rel=1e-4)


def test_it_is_never_above_the_worst_case():
    network, dataset = closed_forms.network(KERNEL), closed_forms.dataset()
    settings = {"rho": 1.0, "m": 16}
    sam = sam_sharpness(network, dataset, **settings)
    worst = worst_case_sharpness(network, dataset, **settings)
    assert 0.01 < sam.value < worst.value * (1 - 1e-4)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_gradient_of_zero_gives_zero(adaptive):
    result = _result(0 * KERNEL, adaptive=adaptive)
    assert result.value == 0.0


def test_a_step_too_far_lowers_the_loss():
    def hill(labels, outputs):
        del labels
        total = outputs[:, 0]
        return -((total - 0.1) ** 2)

    images = np.ones((2, 1), np.float32)
    dataset = closed_forms.dataset(images, np.zeros(2, np.int64))
    network = closed_forms.network(np.zeros((1, 1), np.float32))
    result = sam_sharpness(network, dataset, hill, rho=1.0)
    # from 0 over the top at 0.1 to 1
    assert result.value == pytest.approx(0.1**2 - 0.9**2, rel=1e-5)


def test_m_sharpness_takes_a_step_for_each_batch():
    rises = [
        _quadratic_rise(images.T.astype(np.float64) @ images / 15)
        for images in (IMAGES[:15], IMAGES[15:30])
    ]
    result = _result(m=15)
    assert result.value == pytest.approx(np.mean(rises), rel=1e-5)
    error = abs(rises[0] - rises[1]) / 2
    assert result.standard_error == pytest.approx(error, rel=1e-4)
    assert result.name == "sam_m_sharpness"
    assert _result(m=32).value == pytest.approx(_result().value, rel=1e-5)


def test_of_error_counts_examples():
    # example i has the logits of row i, and is right by their difference
    margins = np.array([0.05, 0.05, 3.0, -3.0], np.float32)
    kernel = np.stack([margins, 0 * margins], axis=1)
    dataset = closed_forms.dataset(
        np.eye(4, dtype=np.float32), np.zeros(4, np.int64)
    )
    result = sam_sharpness(
        closed_forms.network(kernel), dataset, of="error", rho=0.5
    )
    # the gradients in both logits, +-p / 4 with p = 1 / (1 + e^margin), share
    # the radius: those of the first two move by 0.2 each, and lose 0.4
    assert result.value == pytest.approx(50.0)
    assert result.unit == "points"
    assert result.name == "sam_error_sharpness"
    assert result.details["accuracy"] == 0.75


def test_adaptive_is_blind_to_a_rescaling_of_layers_without_eta():
    generator = np.random.default_rng(1)
    first = generator.normal(size=(5, 8)).astype(np.float32)
    second = generator.normal(size=(8, 3)).astype(np.float32)
    values = {
        (eta, factor): sam_sharpness(
            closed_forms.network(first * factor, second / factor),
            closed_forms.dataset(),
            cross_entropy,
            adaptive=True,
            rho=0.1,
            eta=eta,
        ).value
        for eta in (0.0, 1.0)
        for factor in (1.0, 8.0)
    }
    assert values[0.0, 1.0] > 1e-2
    assert values[0.0, 8.0] == pytest.approx(values[0.0, 1.0], rel=1e-4)
    assert values[1.0, 8.0] > 1.5 * values[1.0, 1.0]


@pytest.mark.parametrize("point", ["deployed", "latent"])
def test_a_result_can_be_repeated_from_its_record(point):
    network, dataset = closed_forms.network(KERNEL), closed_forms.dataset()
    before = [value.tobytes() for value in network.get_weights()]
    result = sam_sharpness(network, dataset, point=point, m=10, adaptive=True)
    assert [value.tobytes() for value in network.get_weights()] == before
    text = json.dumps(dataclasses.asdict(result), allow_nan=False)
    record = json.loads(text)
    assert record["settings"]["rho"] == 0.05
    assert sam_sharpness(network, dataset, **record["settings"]) == result


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"eta": -0.1}, "eta >= 0, not -0.1"),
        ({"eta": float("nan")}, "not nan"),
        ({"rho": 0.0}, "rho > 0, not 0.0"),
        ({"of": "accuracy"}, "'accuracy'"),
        ({"m": 33}, "m is 33, and the data set has 32"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        _result(**settings)


def test_a_loss_that_is_not_finite():
    network = closed_forms.network(KERNEL)
    with pytest.raises(errors.ModelError, match="rho of 1e\\+30: choose"):
        sam_sharpness(
            network, closed_forms.dataset(), closed_forms.quadratic, rho=1e30
        )
    np.testing.assert_array_equal(network.get_weights()[0], KERNEL)
