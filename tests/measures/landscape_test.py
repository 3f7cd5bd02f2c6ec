"""Landscapes of losses that are known, and what leaves them as they are."""

import json

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.landscape import filter_normalized, loss_landscape
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES

layers = keras.layers

_GENERATOR = np.random.default_rng(1)
KERNEL = _GENERATOR.normal(size=(5, 3)).astype(np.float32)
FIRST = _GENERATOR.normal(size=(5, 6)).astype(np.float32)
SECOND = _GENERATOR.normal(size=(6, 3)).astype(np.float32)
SHAPE = (6, 6, 2)


def _zoo():
    """A network of every layer that has filters of its own kind."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, name="conv", use_bias=False)(inputs)
    x = layers.BatchNormalization(name="norm", epsilon=1e-12)(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise", depth_multiplier=2)(x)
    x = layers.Conv2DTranspose(5, 2, name="transpose")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="zoo")


def _images():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(12, *SHAPE)).astype(np.float32)
    return closed_forms.dataset(images, generator.integers(3, size=12), 8)


def _twin(model, bits):
    twin = quantize_model(model, BitScheme(bits, 8, bits))
    calibrate(twin, _images())
    return twin


@pytest.fixture(scope="module")
def twins():
    """A float model and its twins of 8 and 2 bits."""
    model = _zoo()
    return [model, _twin(model, 8), _twin(model, 2)]


def _directions(model, seed=0, weights=None):
    chosen = perturbations.kernels(model)
    found = filter_normalized(model, chosen, weights or chosen, seed, 2)
    return [[part.numpy() for part in direction] for direction in found]


def _norms(kernel, channel_axes):
    """Norm of each filter: the sum over all axes but those of channels."""
    others = tuple(
        axis for axis in range(kernel.ndim) if axis not in channel_axes
    )
    return np.sqrt((kernel.astype(np.float64) ** 2).sum(axis=others))


def _normalized_noise(kernel, seed, draw):
    """A direction in a dense kernel, in float64, by other means."""
    (noise,) = perturbations.gaussian(
        [tf.constant(kernel)], seed=seed, draw=draw, adaptive=False
    )
    noise = noise.numpy().astype(np.float64)
    return noise * np.linalg.norm(kernel, axis=0) / _norms(noise, (1,))


def _quadratic(kernel):
    return np.square(IMAGES @ kernel).sum(axis=1).mean() / 2


def _line(model, dataset, loss_fn=closed_forms.quadratic, **settings):
    return loss_landscape(
        model, dataset, loss_fn, num_directions=1, num_points=5, **settings
    )


def test_of_a_quadratic_is_the_quadratic_form():
    network = closed_forms.network(KERNEL)
    landscape = loss_landscape(
        network,
        closed_forms.dataset(),
        closed_forms.quadratic,
        seed=4,
        span=2.0,
        num_points=5,
    )
    assert landscape.coordinates.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    first, second = (
        _normalized_noise(KERNEL, seed=4, draw=draw) for draw in (0, 1)
    )
    for i, a in enumerate(landscape.coordinates):
        for j, b in enumerate(landscape.coordinates):
            truth = _quadratic(KERNEL + a * first + b * second)
            assert landscape.losses[i, j] == pytest.approx(truth, rel=1e-5)


def test_filters_have_the_norms_of_those_of_the_weights(twins):
    network = inference_model(twins[0]).model
    axes = [(3,), (2, 3), (2,), (1,)]  # conv, depthwise, transpose, dense
    counts = [4, 8, 5, 3]
    weights = perturbations.kernels(network)
    assert [w.shape.rank for w in weights] == [4, 4, 4, 2]
    assert weights[2].shape[2] == 5 != weights[2].shape[3]
    for direction in _directions(network):
        for part, weight, channels, count in zip(
            direction, weights, axes, counts, strict=True
        ):
            found = _norms(part, channels)
            assert found.size == count
            np.testing.assert_allclose(
                found, _norms(weight.numpy(), channels), rtol=1e-5
            )
            assert np.std(part) > 0


def test_filters_of_wrapped_and_of_other_layers(twins):
    # under a live quantizer the weights belong to a wrapper
    latent = _directions(twins[1])
    for part, again in zip(latent[0], _directions(twins[0])[0], strict=True):
        np.testing.assert_array_equal(part, again)
    inputs = keras.Input([7, 4])
    heads = layers.EinsumDense("abc,cde->abde", (7, 2, 3))(inputs)
    mixed = layers.EinsumDense("abde,dec->abc", (7, 5))(heads)
    model = keras.Model(inputs, mixed)
    first, second = _directions(model)[0]
    weights = [weight.numpy() for weight in perturbations.kernels(model)]
    for part, weight, channels in (
        (first, weights[0], (1, 2)),
        (second, weights[1], (2,)),
    ):
        np.testing.assert_allclose(
            _norms(part, channels), _norms(weight, channels), rtol=1e-5
        )


def test_a_vector_is_one_filter_and_a_filter_of_zeros_stays():
    network = closed_forms.network(KERNEL)
    bias = tf.Variable([3.0, 0.0, 4.0])
    kernel = KERNEL.copy()
    kernel[:, 1] = 0.0
    ((moved, still), *_) = filter_normalized(
        network,
        [bias, network.trainable_weights[0]],
        [bias, tf.constant(kernel)],
        0,
        1,
    )
    noise, _ = perturbations.gaussian(
        [bias, KERNEL], seed=0, draw=0, adaptive=False
    )
    np.testing.assert_allclose(
        moved, 5.0 * noise / np.linalg.norm(noise), rtol=1e-6
    )
    assert (still.numpy()[:, 1] == 0.0).all()
    assert (still.numpy()[:, [0, 2]] != 0.0).all()


def test_twins_are_cut_along_the_same_directions(twins):
    networks = [inference_model(model).model for model in twins]
    ones = [tf.ones_like(v) for v in perturbations.kernels(networks[0])]
    raw = [_directions(network, seed=3, weights=ones) for network in networks]
    for direction in range(2):
        for parts in zip(*(found[direction] for found in raw), strict=True):
            np.testing.assert_array_equal(parts[1], parts[0])
            np.testing.assert_array_equal(parts[2], parts[0])
    assert not np.array_equal(raw[0][0][0], raw[0][1][0])
    other = _directions(networks[0], seed=4, weights=ones)
    assert not np.array_equal(raw[0][0][0], other[0][0])
    # what is not the same by default is the length of a step
    own = [_directions(network)[0][0] for network in networks]
    assert not np.array_equal(own[2], own[0])


def test_equal_weights_have_equal_landscapes_to_the_bit():
    network = closed_forms.network(FIRST, SECOND)
    copies = [network, keras.models.clone_model(network)]
    copies[1].set_weights(network.get_weights())
    first, second = (
        loss_landscape(model, closed_forms.dataset(), num_points=3)
        for model in copies
    )
    assert first.losses.tobytes() == second.losses.tobytes()
    assert first.accuracies.tobytes() == second.accuracies.tobytes()
    assert first.settings == second.settings


def test_a_line_is_the_middle_of_the_plane():
    network = closed_forms.network(FIRST, SECOND)
    plane = loss_landscape(network, closed_forms.dataset(), num_points=5)
    line = _line(network, closed_forms.dataset(), cross_entropy)
    np.testing.assert_array_equal(line.losses, plane.losses[:, 2])
    np.testing.assert_array_equal(line.accuracies, plane.accuracies[:, 2])
    assert len(set(plane.losses[2])) == 5  # along the second direction
    with perturbations.neighbourhood(
        network,
        closed_forms.dataset(),
        cross_entropy,
        point="deployed",
        variables=perturbations.kernels,
    ) as near:
        assert line.losses[2] == near.loss
        assert line.accuracies[2] == near.accuracy


def test_the_grid_is_symmetric_about_an_exact_zero():
    coordinates = loss_landscape(
        closed_forms.network(KERNEL),
        closed_forms.dataset(),
        num_directions=1,
        span=0.7,
        num_points=21,
    ).coordinates
    assert coordinates[10] == 0.0
    np.testing.assert_array_equal(coordinates, -coordinates[::-1])
    assert coordinates[-1] == 0.7
    np.testing.assert_allclose(np.diff(coordinates), 0.07, rtol=1e-12)


def test_a_scale_before_batch_norm_changes_nothing():
    surfaces = []
    for scale in (1.0, 4.0):
        model = _zoo()
        generator = np.random.default_rng(5)
        for variable in model.weights:
            values = generator.uniform(0.2, 1.0, size=variable.shape)
            if "conv/" in variable.name or "moving_mean" in variable.name:
                values = values * scale
            if "moving_variance" in variable.name:
                values = values * scale**2
            variable.assign(values)
        surfaces.append(_line(model, _images(), cross_entropy).losses)
    assert np.ptp(surfaces[0]) > 1e-2
    np.testing.assert_allclose(surfaces[1], surfaces[0], rtol=1e-5)
    # a reference is folded as the model is
    own = _line(model, _images(), cross_entropy, reference=model).losses
    assert own.tobytes() == surfaces[1].tobytes()


def test_a_rescaling_of_layers_changes_nothing_without_a_reference():
    plain = closed_forms.network(FIRST, SECOND)
    scaled = closed_forms.network(FIRST * 8, SECOND / 8)
    data = closed_forms.dataset()
    surface = _line(plain, data)
    assert np.ptp(surface.losses) > 0.1
    np.testing.assert_allclose(
        _line(scaled, data).losses, surface.losses, rtol=1e-5
    )
    # steps of the same length tell the two apart
    fixed = _line(scaled, data, reference=plain)
    assert fixed.losses[2] == pytest.approx(surface.losses[2], rel=1e-6)
    assert abs(fixed.losses[0] / surface.losses[0] - 1) > 0.1
    assert fixed.settings["reference"] == "net"
    own = _line(plain, data, reference=plain)
    assert own.losses.tobytes() == surface.losses.tobytes()


def test_a_reference_gives_twins_the_same_steps():
    float_model = closed_forms.network(KERNEL)
    twin = quantize_model(float_model, BitScheme(2, 32, 2))
    (kernel,) = perturbations.kernels(inference_model(twin).model)
    kernel = kernel.numpy()
    assert not np.allclose(_norms(kernel, (1,)), _norms(KERNEL, (1,)), rtol=0.1)
    for reference, normed in ((None, kernel), (float_model, KERNEL)):
        step = _normalized_noise(normed, seed=0, draw=0)
        landscape = _line(twin, closed_forms.dataset(), reference=reference)
        for a, loss in zip(
            landscape.coordinates, landscape.losses, strict=True
        ):
            assert loss == pytest.approx(_quadratic(kernel + a * step), 1e-5)


def test_only_chosen_weights_move_and_all_come_back(twins):
    for model in twins:
        for point in ("deployed", "latent"):
            before = [value.tobytes() for value in model.get_weights()]
            _line(model, _images(), cross_entropy, point=point)
            after = [value.tobytes() for value in model.get_weights()]
            assert after == before
    moved = []

    def watch(labels, outputs):
        moved.append([w.numpy().tobytes() for w in network.weights])
        return cross_entropy(labels, outputs)

    network = _zoo()
    tf.config.run_functions_eagerly(True)
    try:
        _line(network, _images(), watch, point="latent")
    finally:
        tf.config.run_functions_eagerly(False)
    names = [weight.name for weight in network.weights]
    for name, *values in zip(names, *moved, strict=True):
        assert (len(set(values)) > 1) == ("kernel" in name), name


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_weights_come_back_after_an_exception(error):
    network = closed_forms.network(FIRST, SECOND)
    before = [value.tobytes() for value in network.get_weights()]
    during = []

    def stop(points):
        yield points[0]
        during.extend(value.tobytes() for value in network.get_weights())
        raise error

    with pytest.raises(error):
        _line(
            network,
            closed_forms.dataset(),
            cross_entropy,
            point="latent",
            progress=stop,
        )
    assert during and during != before
    assert [value.tobytes() for value in network.get_weights()] == before


def test_an_overflow_is_inf_in_the_landscape():
    landscape = _line(
        closed_forms.network(FIRST, SECOND),
        closed_forms.dataset(),
        cross_entropy,
        span=1e25,
    )
    assert np.isfinite(landscape.losses[2])
    assert (landscape.losses[[0, 1, 3, 4]] == np.inf).all()
    assert ((0 <= landscape.accuracies) & (landscape.accuracies <= 1)).all()


def test_settings_say_how_to_repeat_it():
    settings = {
        "point": "latent",
        "seed": 5,
        "num_directions": 1,
        "span": 0.5,
        "num_points": 3,
    }
    network, data = closed_forms.network(FIRST, SECOND), closed_forms.dataset()
    first = loss_landscape(network, data, **settings)
    assert first.settings == {**settings, "reference": None}
    again = loss_landscape(network, data, **json.loads(json.dumps(settings)))
    assert again.losses.tobytes() == first.losses.tobytes()
    for changed in ({"seed": 6}, {"span": 0.6}):
        other = loss_landscape(network, data, **{**settings, **changed})
        assert other.losses[0] != first.losses[0]
        assert other.losses[1] == first.losses[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_directions": 0},
        {"num_directions": 3},
        {"span": 0.0},
        {"span": -1.0},
        {"span": float("nan")},
        {"span": float("inf")},
        {"num_points": 1},
        {"num_points": 4},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(errors.ConfigError, match="loss_landscape needs"):
        loss_landscape(
            closed_forms.network(KERNEL), closed_forms.dataset(), **settings
        )


def test_a_reference_of_other_weights():
    with pytest.raises(errors.ModelError, match="pass the float model"):
        _line(
            closed_forms.network(KERNEL),
            closed_forms.dataset(),
            reference=closed_forms.network(FIRST, SECOND),
        )
