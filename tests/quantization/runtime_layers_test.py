"""What the integer runtime computes otherwise than Keras, step by step."""

import numpy as np
import pytest

from qgen_tf.compat import keras
from qgen_tf.quantization import (
    ActivationGrid,
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.affine import ChannelAffine
from qgen_tf.quantization.grids import AverageGrid
from tests import harness, layer_nets

layers = keras.layers


def _deployed(middle, *bits):
    twin = quantize_model(
        layer_nets.randomized(layer_nets._net(middle)), BitScheme(*bits)
    )
    calibrate(twin, harness.calibration_data())
    return inference_model(twin)


def _behind(network, name):
    """Returns the kinds of the layers from `name` on, and their names."""
    names = [layer.name for layer in network.model.layers]
    return [
        (type(layer), layer.name)
        for layer in network.model.layers[names.index(name) :]
    ]


def _outputs(network, name):
    layer = network.model.get_layer(name)
    return keras.Model(network.model.input, layer.output)(harness.test_images())


def test_joined_tensors_are_on_the_grid_of_the_result():
    def branches(x):
        y = layers.Conv2D(3, 1, activation="relu", name="other")(x)
        return layers.Concatenate(name="join")([x, y])

    network = _deployed(branches, 4, 3)
    joined = network.model.get_layer("join_grid")
    for index in range(2):
        grid = network.model.get_layer(f"join_input{index}_grid")
        assert grid.step_size == joined.step_size
        assert (grid.num_bits, grid.high) == (8, joined.high)
        factors = network.affine_grids[f"join_input{index}"]
        np.testing.assert_array_equal(factors.values, np.ones(6 - 3 * index))
        assert not factors.bias_levels.any()
    levels = _outputs(network, "join") / joined.step_size
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


@pytest.mark.parametrize(
    "layer", [layers.ReLU(), layers.ReLU(6.0), layers.Activation("relu")]
)
def test_relu_behind_a_grid_reads_a_factor(layer):
    def pooled(x):
        clipped = type(layer).from_config(
            {**layer.get_config(), "name": "clip"}
        )
        return clipped(layers.MaxPooling2D()(x))

    network = _deployed(pooled, 8, 8)
    factors = network.affine_grids["clip_input"]
    np.testing.assert_array_equal(factors.values, np.ones(6))
    assert _behind(network, "clip_input")[1] == (type(layer), "clip")
    fused = _deployed(layers.ReLU(name="clip"), 8, 8)
    assert fused.affine_grids == {}


@pytest.mark.parametrize("slope", [0.0, 0.3, 2.0])
def test_leaky_relu_is_a_maximum(slope):
    leaky = layers.LeakyReLU(slope, name="leaky")
    network = _deployed(leaky, 8, 8)
    inputs = _outputs(network, "stem_grid").numpy()
    step = network.model.get_layer("leaky_grid").step_size
    found = _outputs(network, "leaky_grid")
    wanted = np.where(inputs > 0.0, inputs, slope * inputs)
    assert inputs.min() < 0.0
    assert np.abs(found - wanted).max() <= 0.51 * step


@pytest.mark.parametrize(
    ("layer", "rounds_up"),
    [
        (layers.AveragePooling2D(2), False),
        (layers.AveragePooling2D(3, 2, "same"), False),
        (layers.UpSampling2D(interpolation="bilinear"), True),
    ],
)
@pytest.mark.parametrize("bits", [8, 3])
def test_neighbours_are_averaged_on_the_grid_of_the_inputs(
    layer, rounds_up, bits
):
    layer = type(layer).from_config({**layer.get_config(), "name": "average"})
    network = _deployed(layer, 8, bits)
    grid = network.model.get_layer("average_average")
    stem = network.model.get_layer("stem_grid")
    assert isinstance(grid, AverageGrid) and grid.rounds_up == rounds_up
    finer = 2 ** (8 - bits)
    assert grid.num_bits == 8 and grid.step_size == stem.step_size / finer
    assert (grid.low, grid.high // finer) == (stem.low * finer, stem.high)
    inputs = _outputs(network, "stem_grid")
    off = _outputs(network, "average_average") - layer(inputs)
    assert np.abs(off).max() <= 0.51 * grid.step_size
    # the few bits of the inputs do not limit those of the average
    output = network.model.get_layer("average_grid")
    off = _outputs(network, "average_grid") - output(layer(inputs))
    limit = 0.51 * grid.step_size + 0.5 * output.step_size
    assert np.abs(off).max() <= limit
    assert _behind(network, "average_average")[:3] == [
        (AverageGrid, "average_average"),
        (ChannelAffine, "average_rescaled"),
        (ActivationGrid, "average_grid"),
    ]


@pytest.mark.parametrize(
    "layer",
    [
        layers.AveragePooling2D(2),
        layers.UpSampling2D(interpolation="bilinear"),
        layers.UpSampling2D(),
        layers.LeakyReLU(),
        layers.ReLU(),
    ],
)
def test_float_layers_stay_as_they_are(layer):
    layer = type(layer).from_config({**layer.get_config(), "name": "middle"})
    network = _deployed(layer, 8, 32)
    assert network.affine_grids == {}
    assert [kind for kind, _ in _behind(network, "middle")] == [
        type(layer),
        layers.Flatten,
        layers.Dense,
    ]
