"""Noise power by hand, and where the uniform model holds and fails."""

import dataclasses
import json
import math

import numpy as np
import pytest

from qgen_tf.compat import keras
from qgen_tf.measures import LayerNoise, layer_noise
from qgen_tf.measures.noise import uniform_noise
from qgen_tf.quantization import (
    BitScheme,
    InferenceModel,
    inference_model,
    quantize_model,
)
from tests import harness


def _noise(latent, step_size, num_bits) -> LayerNoise:
    grid = harness.weight_grid(
        np.asarray(latent, np.float32),
        np.asarray(step_size, np.float32),
        num_bits,
    )
    (row,) = layer_noise(InferenceModel(keras.Model(), {"layer": grid}))
    return row


def _model(weights):
    inputs = keras.Input([weights[0].shape[0]])
    x = inputs
    for index, weight in enumerate(weights):
        dense = keras.layers.Dense(weight.shape[1], name=f"dense{index}")
        x = dense(x)
        dense.kernel.assign(weight)
    return keras.Model(inputs, x)


def test_by_hand():
    row = _noise(
        [[0.9, 0.0], [-0.25, 8.0], [2.0, -9.0], [0.1, 2.5]], [[1.0, 2.0]], 3
    )
    # levels [[1, 0], [0, 3], [2, -3], [0, 1]]
    noise = np.array([[-0.1, 0.0], [-0.25, 2.0], [0.0, -3.0], [0.1, 0.5]])
    assert row.layer == "layer"
    assert row.num_bits == 3
    assert row.num_weights == 8
    assert row.step_size == 1.5
    assert row.step_size_min == 1.0
    assert row.step_size_max == 2.0
    assert row.predicted_noise_power == pytest.approx((4 * 1 + 4 * 4) / 12)
    assert row.noise_power == pytest.approx((noise**2).sum(), rel=1e-6)
    assert row.clipped == 2 / 8
    # in steps, sorted: -1.5 -.25 -.1 0 0 .1 .25 1; their distribution is
    # farthest from x + 1/2 at .1, where six of eight lie and not 0.6
    assert row.uniform_distance == pytest.approx(0.15, abs=1e-6)
    latent = noise + [[1, 0], [0, 6], [2, -6], [0, 2]]
    expected = np.corrcoef(latent.ravel(), noise.ravel())[0, 1]
    assert row.weight_correlation == pytest.approx(expected, rel=1e-5)


def test_uniform_noise_is_a_good_model_at_8_bits_through_a_network():
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=(120, 90)).astype(np.float32)]
    weights.append(generator.normal(size=(90, 150)).astype(np.float32) / 7)
    network = inference_model(
        quantize_model(_model(weights), BitScheme(8, 32, 8))
    )
    rows = layer_noise(network)
    assert [row.layer for row in rows] == ["dense0", "dense1"]
    for row, weight in zip(rows, weights, strict=True):
        step = np.abs(weight).max() / 127
        assert row.num_bits == 8
        assert row.num_weights == weight.size
        assert row.step_size == pytest.approx(step, rel=1e-5)
        assert row.noise_power == pytest.approx(
            weight.size * step**2 / 12, rel=0.04
        )
        assert row.predicted_noise_power == pytest.approx(
            weight.size * step**2 / 12, rel=1e-5
        )
        assert row.uniform_distance < 2 / math.sqrt(weight.size)
        assert row.clipped == 0.0
        assert abs(row.weight_correlation) < 0.05


def test_uniform_noise_is_a_bad_model_at_2_bits():
    latent = np.random.default_rng(0).normal(size=(100, 100))
    # a step as wide as an outlier rounds all others to zero: noise is weight
    wide = _noise(latent, 8.0, 2)
    assert wide.uniform_distance > 0.2
    assert wide.weight_correlation > 0.99
    assert wide.noise_power == pytest.approx(latent.size, rel=0.05)
    assert wide.predicted_noise_power == pytest.approx(latent.size * 64 / 12)
    narrow = _noise(latent, 0.5, 2)
    assert narrow.clipped == pytest.approx(
        math.erfc(0.75 / math.sqrt(2)), abs=0.02
    )
    assert narrow.uniform_distance > 0.1
    assert narrow.noise_power > 2 * narrow.predicted_noise_power


@pytest.mark.parametrize(
    ("quantizer", "num_bits", "width"),
    [("lsq", 1, 1.0), ("dorefa", 1, 1.0), ("dorefa", 3, 2 / 7)],
)
def test_bins_of_grids_without_a_zero_are_two_steps_wide(
    quantizer, num_bits, width
):
    latent = np.random.default_rng(0).uniform(-1, 1, size=(90, 80))
    latent[0] = 0.999999
    # DoReFa rounds the tanh of a weight, but for one bit
    weight = latent if num_bits == 1 else np.arctanh(latent)
    scheme = BitScheme(
        num_bits, 32, quantizer=quantizer, overrides=(("*", num_bits, 32),)
    )
    network = inference_model(
        quantize_model(_model([weight.astype(np.float32)]), scheme)
    )
    (row,) = layer_noise(network)
    (grid,) = network.weight_grids.values()
    assert len(np.unique(grid.levels)) == 2**num_bits
    assert row.step_size == pytest.approx(width, rel=0.02)
    assert row.predicted_noise_power == pytest.approx(
        weight.size * row.step_size**2 / 12
    )
    assert row.noise_power == pytest.approx(row.predicted_noise_power, rel=0.05)
    assert row.uniform_distance < 0.03
    assert row.clipped < 0.03


def test_a_float_network_has_no_noise():
    model = _model([np.ones((3, 2), np.float32)])
    assert layer_noise(inference_model(model)) == []


@pytest.mark.parametrize("constant", [0.0, 0.3, -1e-4])
@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_equal_weights_give_numbers(constant, num_bits):
    weights = [np.full((9, 9), constant, np.float32)] * 2
    network = inference_model(
        quantize_model(_model(weights), BitScheme(num_bits, 32, num_bits))
    )
    for row in layer_noise(network):
        fields = dataclasses.asdict(row)
        assert fields.pop("layer") in ("dense0", "dense1")
        assert all(math.isfinite(number) for number in fields.values())
        assert row.weight_correlation == 0.0


def test_fields_are_json():
    row = _noise([[0.9, 0.0]], [[1.0, 2.0]], 3)
    text = json.dumps(dataclasses.asdict(row), allow_nan=False)
    assert LayerNoise(**json.loads(text)) == row


def test_uniform_noise_fills_the_bins():
    widths = [np.full((40, 50), 2.0), np.tile([0.0, 0.5], (1000, 1))]
    first, second = (
        part.numpy() for part in uniform_noise(widths, seed=0, draw=0)
    )
    assert np.abs(first).max() == pytest.approx(1.0, rel=5e-3)
    # the mean square of 2000 draws is known to 0.9 / sqrt(2000)
    assert (first**2).mean() == pytest.approx(4 / 12, rel=0.08)
    assert abs(first.mean()) < 4 * (4 / 12 / 2000) ** 0.5
    assert not second[:, 0].any()
    assert (second[:, 1] ** 2).mean() == pytest.approx(0.25 / 12, rel=0.12)
    # another tensor, another draw and another seed are other noise
    for settings in ({"seed": 0, "draw": 1}, {"seed": 1, "draw": 0}):
        other, _ = uniform_noise(widths, **settings)
        assert abs(np.corrcoef(first.flat, other.numpy().flat)[0, 1]) < 0.1
    column = first.reshape(-1, 2)[:, 1]
    assert abs(np.corrcoef(column, second[:, 1])[0, 1]) < 0.15
    again, _ = uniform_noise(widths, seed=0, draw=0)
    np.testing.assert_array_equal(again, first)
