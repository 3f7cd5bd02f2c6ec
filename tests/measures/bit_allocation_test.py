"""Suggested bits: optimal by brute force, within the budget, and worth it."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import evaluate, predictor, suggest_bits
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantization_report,
    quantize_model,
)
from tests import harness
from tests.measures import closed_forms

layers = keras.layers
CHOICES = (2, 3, 4, 8)


def _batches(images, labels):
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.batch(256).cache()


def _dataset():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(40, 8, 8, 2)).astype(np.float32)
    return _batches(images, generator.integers(3, size=40))


@pytest.fixture(scope="module")
def model():
    """Three layers with 108, 54 and 288 weights, near a minimum."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input([8, 8, 2])
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.DepthwiseConv2D(3, name="depthwise")(x))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    model.compile(keras.optimizers.Adam(1e-2), harness.loss())
    model.fit(_dataset(), epochs=60, verbose=0)
    return model


def _suggest(model, budget, **settings):
    return suggest_bits(
        model, _dataset(), budget, **{"num_probes": 8, **settings}
    )


def _rises(table, choices=CHOICES):
    return table[[f"rise_at_{bits}_bits" for bits in choices]].to_numpy()


def _brute_force(table, budget):
    """Returns the smallest sum of rises by trying everything."""
    sizes, rises = table["num_weights"].to_numpy(), _rises(table)
    return min(
        rises[range(len(sizes)), list(picks)].sum()
        for picks in itertools.product(range(len(CHOICES)), repeat=len(sizes))
        if sizes @ np.array(CHOICES)[list(picks)] / 8 <= budget
    )


@pytest.mark.full
def test_more_budget_is_used_best_and_never_hurts(model):
    rises = []
    for budget in (112.5, 130, 170, 224.9, 300, 449):
        suggestion = _suggest(model, budget)
        assert suggestion.num_bytes <= budget == suggestion.budget
        assert suggestion.predicted_loss_rise == pytest.approx(
            _brute_force(suggestion.table, budget), rel=1e-9
        )
        rises.append(suggestion.predicted_loss_rise)
    assert rises == sorted(rises, reverse=True)
    assert rises[-1] < 0.1 * rises[0]


def test_the_table_adds_up(model):
    suggestion = _suggest(model, 225)
    table = suggestion.table
    assert list(table) == [
        "layer",
        "num_weights",
        "trace",
        "standard_error",
        "weight_bits",
        "num_bytes",
        "predicted_loss_rise",
        "rise_at_2_bits",
        "rise_at_3_bits",
        "rise_at_4_bits",
        "rise_at_8_bits",
        "note",
    ]
    assert list(table["layer"]) == ["conv", "depthwise", "logits"]
    assert list(table["num_weights"]) == [108, 54, 288]
    assert (table["trace"] > 0).all()
    assert (table["standard_error"] > 0).all()
    assert (table["note"] == "").all()
    np.testing.assert_array_equal(
        table["num_bytes"], table["num_weights"] * table["weight_bits"] / 8
    )
    picks = [CHOICES.index(bits) for bits in table["weight_bits"]]
    np.testing.assert_array_equal(
        table["predicted_loss_rise"], _rises(table)[range(3), picks]
    )
    assert suggestion.num_bytes == table["num_bytes"].sum()
    assert suggestion.predicted_loss_rise == pytest.approx(
        table["predicted_loss_rise"].sum()
    )


@pytest.mark.parametrize("activation_bits", [4, 8, 32])
def test_the_scheme_gives_the_model_these_bits(model, activation_bits):
    suggestion = _suggest(
        model,
        170,
        activation_bits=activation_bits,
        per_axis=False,
        quantizer="minmax",
    )
    scheme, table = suggestion.scheme, suggestion.table
    assert scheme.overrides == tuple(
        (layer, bits, None)
        for layer, bits in zip(
            table["layer"], table["weight_bits"], strict=True
        )
    )
    assert (scheme.quantizer, scheme.per_axis) == ("minmax", False)
    quantized = quantize_model(model, scheme)
    calibrate(quantized, _dataset())
    report = quantization_report(quantized).set_index("layer")
    for layer, bits in zip(table["layer"], table["weight_bits"], strict=True):
        assert report.loc[layer, "weight_bits"] == bits
    deployed = inference_model(quantized)
    assert list(deployed.weight_grids) == list(table["layer"])
    found = report["activation_bits"].dropna().unique().tolist()
    # the images are read by the first layer, at 8 bits
    expected = {4: [8, 4], 8: [8], 32: []}[activation_bits]
    assert sorted(found) == sorted(expected)


def test_rise_by_hand():
    images = 3 * np.eye(4, dtype=np.float32)
    kernel = np.array([[1, 2], [-3, 4], [0, 0], [-1, 1]], np.float32) / 4
    suggestion = suggest_bits(
        closed_forms.network(kernel),
        _batches(images, np.zeros(4, np.int64)),
        8,
        choices=(1, 2, 3, 8),
        loss_fn=closed_forms.quadratic,
        num_probes=2,
    )
    (row,) = suggestion.table.to_dict("records")
    # H is diagonal: E[x_i^2] = 9 / 4 for each of 8 weights
    assert row["trace"] == pytest.approx(18, rel=1e-5)
    assert row["standard_error"] < 1e-5
    # steps min(2 mean|w| / sqrt(Q), max|w| / Q); mean|w| is 3/8, the step of
    # one bit, whose bins are two steps wide
    widths = {1: 2 * 3 / 8, 2: 3 / 4, 3: 1 / 3, 8: 1 / 127}
    for bits, width in widths.items():
        # the two weights of zero have no noise where zero is a level
        noisy = 8 if bits == 1 else 6
        assert row[f"rise_at_{bits}_bits"] == pytest.approx(
            width**2 / 24 * 9 / 4 * noisy, rel=1e-5
        )


def test_steps_are_those_of_the_weights_that_are_deployed():
    images = 3 * np.eye(4, dtype=np.float32)
    inputs = layers.Input([1, 1, 4])
    norm = layers.BatchNormalization(epsilon=0.0)
    conv = layers.Conv2D(3, 1)
    model = keras.Model(inputs, layers.Flatten()(norm(conv(inputs))))
    kernel = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    conv.set_weights([kernel[None, None], np.zeros(3)])
    gamma, variance = np.array([[2, -6, 0], [4, 0.25, 1]], np.float32)
    norm.set_weights([gamma, np.zeros(3), np.zeros(3), variance])
    suggestion = suggest_bits(
        model,
        _batches(images[:, None, None], np.zeros(4, np.int64)),
        100,
        choices=(8,),
        loss_fn=closed_forms.quadratic,
        num_probes=2,
    )
    # a channel that BatchNorm switches off has no noise
    steps = np.abs(kernel).max(axis=0) / 127 * np.abs(gamma) / variance**0.5
    truth = 4 * 9 / 4 * (steps**2).sum() / 24
    assert suggestion.predicted_loss_rise == pytest.approx(truth, rel=1e-5)


def test_equal_layers_get_equal_bits_where_that_is_possible():
    # side by side: no curvature couples them, and the traces are exact
    inputs = layers.Input([4])
    branches = [layers.Dense(4, use_bias=False) for _ in range(3)]
    outputs = layers.Concatenate()([branch(inputs) for branch in branches])
    model = keras.Model(inputs, outputs)
    for branch in branches:
        branch.kernel.assign(np.eye(4))
    images = np.eye(4, dtype=np.float32)
    dataset = _batches(images, np.zeros(4, np.int64))

    def bits(budget):
        suggestion = suggest_bits(
            model, dataset, budget, loss_fn=closed_forms.quadratic, num_probes=2
        )
        return suggestion.table["weight_bits"].tolist()

    assert bits(24) == [4, 4, 4]
    # 3, 4 and 8 would fit, but lose more at 3 bits than they gain at 8
    assert bits(30) == [4, 4, 4]
    assert sorted(bits(32)) == [4, 4, 8]


@pytest.mark.parametrize("budget", [450, 1e6, float("inf")])
def test_ample_room_gives_all_layers_the_most_bits(model, budget):
    suggestion = _suggest(model, budget, choices=(4, 8, 2))
    assert suggestion.table["weight_bits"].tolist() == [8, 8, 8]
    assert suggestion.num_bytes == 450


def test_a_negative_estimate_is_zero_and_noted():
    def concave(labels, outputs):
        return -closed_forms.quadratic(labels, outputs)

    images = np.eye(4, dtype=np.float32)
    suggestion = suggest_bits(
        closed_forms.network(np.eye(4, dtype=np.float32)),
        _batches(images, np.zeros(4, np.int64)),
        7,
        loss_fn=concave,
        num_probes=2,
    )
    (row,) = suggestion.table.to_dict("records")
    assert row["trace"] == pytest.approx(-4, rel=1e-5)
    assert "taken as zero" in row["note"]
    assert suggestion.predicted_loss_rise == row["rise_at_2_bits"] == 0.0
    # nothing is gained by more bits, but there is room for 3 and not for 4
    assert row["weight_bits"] == 3


def test_a_budget_that_is_too_small(model):
    with pytest.raises(errors.ConfigError, match="112.*too small.*is 113"):
        _suggest(model, 112)
    with pytest.raises(errors.ConfigError, match="is 225"):
        _suggest(model, 113, choices=(4, 8))


@pytest.mark.parametrize("choices", [(), (32,), (4, 32)])
def test_choices_out_of_range(model, choices):
    with pytest.raises(errors.ConfigError, match="choices.*1 to 8"):
        _suggest(model, 300, choices=choices)


def test_a_quantized_model_is_not_quantized_again(model):
    with pytest.raises(errors.ModelError, match="quantized already"):
        _suggest(quantize_model(model, BitScheme(4, 32)), 300)


def test_nothing_is_changed(model):
    before = [value.tobytes() for value in model.get_weights()]
    first, second = (_suggest(model, 170, seed=3) for _ in range(2))
    assert [value.tobytes() for value in model.get_weights()] == before
    assert first.scheme == second.scheme
    np.testing.assert_array_equal(_rises(first.table), _rises(second.table))
    assert (_rises(first.table) != _rises(_suggest(model, 170).table)).any()


# 4 bits everywhere are what is suggested for 4 bits on average
@pytest.mark.parametrize(
    ("bits", "most"), [(3, 0.9), pytest.param(4, 1.05, marks=pytest.mark.full)]
)
def test_a_trained_network_loses_less_than_at_uniform_bits(bits, most):
    model = harness.trained(harness.tiny_nin)
    images, labels = harness.digits()
    dataset = _batches(images[: harness.NUM_TRAIN], labels[: harness.NUM_TRAIN])

    def loss(scheme):
        quantized = quantize_model(model, scheme)
        calibrate(quantized, harness.calibration_data())
        return evaluate(
            predictor(inference_model(quantized).model), dataset
        ).loss

    float_loss = evaluate(predictor(model), dataset).loss
    uniform = loss(BitScheme(bits, 8, overrides=(("*", bits, 8),)))
    suggestion = suggest_bits(model, dataset, 2100 * bits / 8, num_probes=16)
    assert suggestion.table["num_weights"].sum() == 2100
    assert loss(suggestion.scheme) < most * uniform
    predicted = _rises(suggestion.table)[:, CHOICES.index(bits)].sum()
    assert predicted == pytest.approx(uniform - float_loss, rel=0.6)
