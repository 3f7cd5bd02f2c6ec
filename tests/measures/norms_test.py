"""Norms against sums that are written out, and products of matrices."""

import itertools
import math

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import norms, perturbations
from qgen_tf.measures.path_norm import path_norm
from qgen_tf.measures.weights import of_layer
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests.measures import closed_forms

layers = keras.layers
_GENERATOR = np.random.default_rng(1)
FIRST = _GENERATOR.normal(size=(5, 4)).astype(np.float32)
SECOND = _GENERATOR.normal(size=(4, 3)).astype(np.float32)
NET = closed_forms.network(FIRST, SECOND)
MEASURES = {
    "parameter_norm": norms.parameter_norm,
    "distance_from_initialization": norms.distance_from_initialization,
    "frobenius_product": norms.frobenius_product,
    "spectral_product": norms.spectral_product,
    "path_norm": path_norm,
}


def _value(name, model, **settings):
    result = MEASURES[name](model, closed_forms.dataset(), **settings)
    assert result.name == name
    assert result.standard_error == 0.0
    assert result.converged is True
    return result.value


def _settings(name):
    if name == "distance_from_initialization":
        return {"initial": closed_forms.network(FIRST + 1, SECOND - 2)}
    return {}


def test_values_by_hand():
    squares = (FIRST**2).sum(), (SECOND**2).sum()
    assert _value("parameter_norm", NET) == pytest.approx(sum(squares))
    assert _value("frobenius_product", NET) == pytest.approx(
        math.log(squares[0] * squares[1])
    )
    spectral = [np.linalg.svd(w)[1][0] ** 2 for w in (FIRST, SECOND)]
    assert _value("spectral_product", NET) == pytest.approx(
        math.log(spectral[0] * spectral[1]), abs=1e-4
    )
    # 20 weights are 1 off, 12 are 2 off
    distance = _value(
        "distance_from_initialization",
        NET,
        **_settings("distance_from_initialization"),
    )
    assert distance == pytest.approx(20 * 1 + 12 * 4, rel=1e-6)


def test_details_and_units():
    result = norms.frobenius_product(NET, closed_forms.dataset())
    first, second = result.details["layers"]
    assert first["weight"] == "dense0/kernel"
    assert second["weight"] == "dense1/kernel"
    assert second["squared_norm"] == pytest.approx((SECOND**2).sum())
    assert result.unit == "log"
    result = norms.parameter_norm(NET, closed_forms.dataset())
    assert result.unit == "weight^2"


def test_the_path_norm_is_the_sum_over_all_paths():
    total = sum(
        (FIRST[i, j] * SECOND[j, k]) ** 2.0
        for i, j, k in itertools.product(range(5), range(4), range(3))
    )
    assert _value("path_norm", NET) == pytest.approx(math.log(total), abs=1e-5)


@pytest.mark.parametrize("name", ["path_norm", "frobenius_product"])
def test_products_are_blind_to_a_rescaling_of_layers(name):
    scaled = closed_forms.network(8 * FIRST, SECOND / 8)
    assert _value(name, scaled) == pytest.approx(_value(name, NET), abs=1e-9)
    # which moves a sum of norms
    moved = _value("parameter_norm", scaled)
    assert moved > 2 * _value("parameter_norm", NET)


def _conv_net(factor=1.0, initial=False):
    """Convolution, BatchNorm, ReLU6, a shortcut, pooling and a dense layer."""
    keras.utils.set_random_seed(int(initial))
    inputs = keras.Input([6, 6, 2])
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    norm = layers.BatchNormalization(epsilon=0.0, name="norm")
    x = layers.ReLU(6.0)(norm(conv(inputs)))
    branch = layers.Conv2D(3, 3, padding="same", name="branch")(x)
    x = layers.AveragePooling2D()(layers.Add()([x, branch]))
    outputs = layers.Dense(4, name="head")(layers.Flatten()(x))
    conv.kernel.assign(factor * conv.kernel)
    # what training would make of the moments
    norm.moving_mean.assign(factor * np.array([0.1, 0.2, -0.3]))
    norm.moving_variance.assign(factor**2 * np.array([0.5, 1.0, 2.0]))
    norm.gamma.assign([8.0, -4.0, 16.0])
    return keras.Model(inputs, outputs, name="conv_net")


def test_the_path_norm_of_convolutions_a_shortcut_and_a_mean():
    model = _conv_net()
    network = inference_model(model).model
    kernels = {
        name: network.get_layer(name).kernel.numpy() ** 2
        for name in ("conv", "branch", "head")
    }
    first = closed_forms.matrix(
        network.get_layer("conv"), kernels["conv"], (6, 6, 2)
    )
    second = closed_forms.matrix(
        network.get_layer("branch"), kernels["branch"], (6, 6, 3)
    )
    x = np.ones(72) @ first
    x = (x + x @ second).reshape(3, 2, 3, 2, 3).mean(axis=(1, 3))
    total = (x.reshape(-1) @ kernels["head"]).sum()
    # where ReLU6 would have cut it off
    assert (np.ones(72) @ first).max() > 6
    assert _value("path_norm", model) == pytest.approx(
        math.log(total), abs=1e-5
    )


@pytest.mark.parametrize("name", MEASURES)
def test_batch_norm_hides_the_scale_of_weights(name):
    settings = {}
    if name == "distance_from_initialization":
        settings["initial"] = _conv_net(initial=True)
    plain, scaled = (
        _value(name, _conv_net(factor), **settings) for factor in (1.0, 16.0)
    )
    assert scaled == pytest.approx(plain, rel=1e-4)
    if name in ("parameter_norm", "frobenius_product"):
        settings["point"] = "latent"
        shown = _value(name, _conv_net(16.0), **settings)
        assert abs(shown - _value(name, _conv_net(), **settings)) > 1


@pytest.fixture(scope="module")
def quantized():
    model = quantize_model(_conv_net(), BitScheme(2, 4))
    images = np.random.default_rng(0).normal(size=(32, 6, 6, 2))
    calibrate(model, closed_forms.dataset(images.astype(np.float32)))
    return model


def test_the_path_norm_of_weights_on_their_grids_and_before(quantized):
    deployed = inference_model(quantized)
    squares = {}
    for layer in deployed.model.layers:
        if layer.name in deployed.weight_grids:
            grid = deployed.weight_grids[layer.name]
            squares[layer.name] = grid.values**2, grid.latent**2
    for index, point in enumerate(perturbations.POINTS):
        values = {name: both[index] for name, both in squares.items()}
        first = closed_forms.matrix(
            deployed.model.get_layer("conv"), values["conv"], (6, 6, 2)
        )
        second = closed_forms.matrix(
            deployed.model.get_layer("branch"), values["branch"], (6, 6, 3)
        )
        # a matrix has no activation: ReLU and grids must leave no trace
        x = np.ones(72) @ first
        x = (x + x @ second).reshape(3, 2, 3, 2, 3).mean(axis=(1, 3))
        total = (x.reshape(-1) @ values["head"]).sum()
        assert _value("path_norm", quantized, point=point) == pytest.approx(
            math.log(total), abs=1e-4
        )
    # the float twin, BatchNorm folded
    assert _value("path_norm", quantized, point="latent") == pytest.approx(
        _value("path_norm", _conv_net()), abs=1e-4
    )
    deployed_norm = _value("path_norm", quantized)
    assert abs(deployed_norm - _value("path_norm", _conv_net())) > 1e-2


@pytest.mark.parametrize("point", perturbations.POINTS)
@pytest.mark.parametrize("name", MEASURES)
def test_nothing_moves(name, point, quantized):
    before = [value.tobytes() for value in quantized.get_weights()]
    settings = {}
    if name == "distance_from_initialization":
        settings["initial"] = _conv_net(initial=True)
    assert math.isfinite(_value(name, quantized, point=point, **settings))
    assert [value.tobytes() for value in quantized.get_weights()] == before


def test_of_layer_chooses_at_both_points(quantized):
    for point in perturbations.POINTS:
        network = perturbations.measured_model(quantized, point)
        (kernel,) = of_layer("branch")(network)
        assert kernel.shape == (3, 3, 3, 3)
    assert (
        of_layer("quant_branch")(quantized)[0]
        is of_layer("branch")(quantized)[0]
    )
    assert of_layer("branch") is of_layer("branch")
    only = _value("parameter_norm", NET, variables=of_layer("dense1"))
    assert only == pytest.approx((SECOND**2).sum())
    with pytest.raises(errors.ModelError, match="'dense2'.* dense0, dense1"):
        of_layer("dense2")(NET)


def test_what_a_measure_needs():
    data = closed_forms.dataset()
    with pytest.raises(errors.ConfigError, match="pass initial="):
        norms.distance_from_initialization(NET, data)
    with pytest.raises(errors.ModelError, match="same architecture"):
        norms.distance_from_initialization(
            NET, data, initial=closed_forms.network(FIRST)
        )
    for tolerance in (0.0, 1.0, float("nan")):
        with pytest.raises(errors.ConfigError, match="a tolerance in"):
            norms.spectral_product(NET, data, tolerance=tolerance)


@pytest.mark.parametrize("name", MEASURES)
def test_an_unknown_point(name):
    with pytest.raises(errors.ConfigError, match="'dequantized'"):
        _value(name, NET, point="dequantized", **_settings(name))


@pytest.mark.parametrize("name", MEASURES)
def test_weights_that_are_not_finite(name):
    diverged = closed_forms.network(FIRST * np.nan, SECOND)
    with pytest.raises(errors.ModelError, match="not finite|is nan"):
        _value(name, diverged, **_settings(name))


@pytest.mark.parametrize(
    "name", ["frobenius_product", "spectral_product", "path_norm"]
)
def test_a_layer_of_zeros(name):
    dead = closed_forms.network(FIRST, 0 * SECOND)
    with pytest.raises(errors.ModelError, match="has no logarithm"):
        _value(name, dead)


@pytest.mark.parametrize(
    "name", ["parameter_norm", "frobenius_product", "spectral_product"]
)
def test_a_model_without_kernels(name):
    inputs = keras.Input([5])
    bare = keras.Model(inputs, layers.ReLU()(inputs), name="bare")
    with pytest.raises(errors.ModelError, match="'bare' has no weight"):
        _value(name, bare)


def test_layers_that_are_no_linear_maps():
    inputs = keras.Input([7, 4])
    x = layers.Conv1D(3, 2, name="odd")(inputs)
    model = keras.Model(inputs, layers.Flatten()(x))
    with pytest.raises(errors.ModelError, match=r"'odd' \(Conv1D\) .* linear"):
        _value("spectral_product", model)
    with pytest.raises(errors.ModelError, match=r"'odd' .* no path norm"):
        _value("path_norm", model)
    inputs = keras.Input([None, None, 2])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
    with pytest.raises(errors.ModelError, match="with a fixed size"):
        _value("spectral_product", keras.Model(inputs, x))


def test_a_softmax_at_the_end_is_left_out():
    inputs = keras.Input([5])
    outputs = layers.Dense(4, activation="softmax", use_bias=False)(inputs)
    model = keras.Model(inputs, outputs)
    model.set_weights([FIRST])
    assert _value("path_norm", model) == pytest.approx(
        math.log((FIRST**2).sum()), abs=1e-5
    )


def test_squares_do_not_overflow():
    # 1e30 squared is beyond float32
    huge = closed_forms.network(1e30 * FIRST, SECOND)
    assert _value("path_norm", huge) == pytest.approx(
        _value("path_norm", NET) + 60 * math.log(10), abs=1e-4
    )
    assert _value("frobenius_product", huge) == pytest.approx(
        _value("frobenius_product", NET) + 60 * math.log(10), abs=1e-4
    )
