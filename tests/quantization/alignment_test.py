"""Aligned models: what they compute is what their deployed networks do."""

import numpy as np
import pytest

from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    align,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.quantizers import QUANTIZERS
from tests import harness, layer_nets

layers = keras.layers
IMAGES = harness.test_images()[:128]


def _net(*middle):
    """What is to be aligned, behind a convolution without a bias."""

    def build():
        inputs = layers.Input((8, 8, 1), name="image")
        x = layers.Conv2D(6, 3, use_bias=False, name="stem")(inputs)
        for layer in middle:
            x = type(layer).from_config(layer.get_config())(x)
        return keras.Model(inputs, x)

    return build


_DENSE = layers.Dense(12)
_CONV = layers.Conv2D(8, 3)
_BARE = layers.Conv2D(8, 3, use_bias=False)
_NORM = layers.BatchNormalization(name="norm")
_NO_BETA = layers.BatchNormalization(center=False, name="norm")
_POOL = layers.MaxPooling2D()
# net, kind of the variable that moves, share of levels that are off before
CASES = {
    "dense": (_net(_DENSE), "bias", 0.01),
    "conv": (_net(_CONV, layers.ReLU()), "bias", 0.01),
    "conv_norm": (_net(_BARE, _NORM, layers.ReLU()), "beta", 0.01),
    "biased_conv_norm": (_net(_CONV, _NORM), "beta", 0.01),
    "without_beta": (_net(_CONV, _NO_BETA), "moving_mean", 0.01),
    "depthwise": (
        _net(layers.DepthwiseConv2D(3, depth_multiplier=2), _NORM),
        "beta",
        0.01,
    ),
    "transposed": (
        _net(layers.Conv2DTranspose(5, 3, strides=2)),
        "bias",
        0.01,
    ),
    # whose offsets are finer
    "norm_alone": (_net(_POOL, _NORM), "beta", 0.0),
    "norm_alone_without_beta": (_net(_POOL, _NO_BETA), "moving_mean", 0.0),
}


def _twin(build, bits=2):
    """Returns a calibrated twin, whose biases a few bits make coarse."""
    model = layer_nets.randomized(build)
    twin = quantize_model(model, BitScheme(bits, 8, first_last_bits=bits))
    calibrate(twin, harness.calibration_data())
    return twin


def _share_off(twin):
    """Returns the share of outputs whose levels are not the deployed ones."""
    network = inference_model(twin)
    step = harness.output_step(network)
    off = np.abs(twin(IMAGES).numpy() - network.model(IMAGES).numpy()) / step
    # both are on the grid: level by level, they are the same or are not
    np.testing.assert_allclose(off, np.rint(off), atol=1e-3)
    return float((off > 0.5).mean())


@pytest.mark.parametrize("name", CASES)
def test_an_aligned_model_is_its_deployed_network(name):
    build, kind, off = CASES[name]
    twin = _twin(build)
    before = {v.name: v.numpy() for v in twin.variables}
    assert _share_off(twin) >= off
    move = max(align(twin).values())
    assert 0.1 < move <= 0.5 + 1e-3
    changed = [
        v.name
        for v in twin.variables
        if not np.array_equal(v.numpy(), before[v.name])
    ]
    assert len(changed) == 1 and f"/{kind}:0" in changed[0]
    assert _share_off(twin) < 1e-4
    # to the bit, and there is nothing left to move
    aligned = [value.copy() for value in twin.get_weights()]
    assert max(align(twin).values()) < 1e-3
    for old, new in zip(aligned, twin.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_errors_do_not_add_up_over_layers():
    twin = _twin(harness.residual)
    assert _share_off(twin) > 0.05
    assert set(align(twin)) == {"stem", "branch", "shortcut", "logits"}
    assert _share_off(twin) < 1e-3


def test_channels_that_are_switched_off_stay():
    """A zero factor hides the mean; a tiny one makes a bias of many steps."""
    twin = _twin(_net(_CONV, _NORM))
    norm = twin.get_layer("quant_norm").layer
    gamma = norm.gamma.numpy()
    gamma[:3] = 0.0, 1e-12, 1.0
    norm.gamma.assign(gamma)
    before = norm.beta.numpy()
    align(twin)
    assert norm.beta.numpy()[1] == before[1]
    assert norm.beta.numpy()[2] != before[2]
    assert _share_off(twin) < 1e-4


def test_a_float_model_has_no_steps():
    model = layer_nets.randomized(harness.residual)
    before = model.get_weights()
    assert align(model) == {}
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("quantizer_name", "others"),
    # the others may be so small that it is the largest
    [*((name, 1.0) for name in sorted(QUANTIZERS)), ("lsq", 0.01)],
)
def test_weights_leave_the_edges_of_bins(quantizer_name, others):
    """Where compilers differ in the last digit, they would differ in levels."""
    model = layer_nets.randomized(_net(_CONV))
    scheme = BitScheme(2, 8, first_last_bits=2, quantizer=quantizer_name)
    twin = quantize_model(model, scheme)
    calibrate(twin, harness.calibration_data())
    ((latent, quantizer, variables),) = twin.layers[-1]._weight_vars
    largest = np.abs(latent.numpy()).max()
    weight = np.float32(others) * latent.numpy()
    place = 1, 1, 0, 0

    def level(value):
        weight[place] = value
        return quantizer.grid(weight, variables).levels[place]

    # the last float32 of the lowest level
    low, high = np.float32(-0.9) * largest, np.float32(0.0)
    lowest = level(low)
    assert level(high) > lowest
    while (middle := np.float32(0.5) * (low + high)) not in (low, high):
        low, high = (middle, high) if level(middle) == lowest else (low, middle)
    weight[place] = low
    latent.assign(weight)
    levels = quantizer.grid(weight, variables).levels
    assert level(low * np.float32(1.0 - 1e-6)) > lowest
    align(twin)
    moved = latent.numpy()
    np.testing.assert_array_equal(
        quantizer.grid(moved, variables).levels, levels
    )
    assert 1e-6 < moved[place] / low - 1.0 < 1e-5
    assert level(moved[place] * np.float32(1.0 - 1e-6)) == lowest
    align(twin)
    np.testing.assert_array_equal(latent.numpy(), moved)
