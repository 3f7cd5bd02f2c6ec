"""Weights come back to the bit, and noise is a function of its arguments."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.quantization import BitScheme, quantize_model


def _model():
    inputs = keras.Input([6, 6, 2])
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten(name="flat")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def _weights_only(model):
    return quantize_model(
        model, BitScheme(weight_bits=2, activation_bits=32, first_last_bits=2)
    )


def _dataset():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(8, 6, 6, 2)).astype(np.float32)
    labels = generator.integers(3, size=8)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


def _noise(shapes=((3, 4), (3, 4)), seed=0, draw=0, adaptive=False):
    values = [tf.fill(shape, -2.0) for shape in shapes]
    return [
        noise.numpy()
        for noise in perturbations.gaussian(
            values, seed=seed, draw=draw, adaptive=adaptive
        )
    ]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_variables_are_preserved_to_the_bit(error):
    generator = np.random.default_rng(0)
    values = [generator.normal(size=5).astype(np.float32) for _ in range(3)]
    values[0][:2] = -0.0, np.nan
    variables = [tf.Variable(value) for value in values]

    def disturb():
        with perturbations.preserved(variables) as originals:
            for variable, original in zip(variables, originals, strict=True):
                variable.assign(original * 3.3 + 1e9)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            disturb()
    else:
        disturb()
    for variable, value in zip(variables, values, strict=True):
        assert variable.numpy().tobytes() == value.tobytes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_model_as_it_was(error):
    model = _weights_only(_model())
    before = [value.tobytes() for value in model.get_weights()]
    with (
        pytest.raises(error),
        perturbations.neighbourhood(
            model,
            _dataset(),
            cross_entropy,
            point="latent",
            variables=perturbations.kernels,
        ) as near,
    ):
        loss, _ = near.at(
            perturbations.gaussian(
                near.originals, seed=0, draw=0, adaptive=True
            )
        )
        assert abs(loss - near.loss) > 1e-3
        during = [value.tobytes() for value in model.get_weights()]
        raise error
    assert during != before
    assert [value.tobytes() for value in model.get_weights()] == before


def test_noise_is_a_function_of_seed_draw_and_variable():
    tf.random.set_seed(1)
    first, second = _noise()
    tf.random.set_seed(2)
    np.testing.assert_array_equal(first, _noise()[0])
    others = [second, *_noise(seed=1), *_noise(draw=1), *_noise(seed=-1)]
    for other in others:
        assert not np.array_equal(first, other)


def test_no_number_is_drawn_twice():
    draws = np.concatenate(
        [
            np.ravel(_noise(draw=draw, seed=seed))
            for draw in range(9)
            for seed in range(9)
        ]
    )
    assert len(np.unique(draws)) > 0.999 * len(draws)


def test_noise_is_standard_normal():
    (noise,) = _noise(shapes=((200, 200),))
    assert noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0.0, abs=4 / 200)
    assert noise.std() == pytest.approx(1.0, abs=4 / 200 / 2**0.5)
    fourth = (noise.astype(np.float64) ** 4).mean()
    assert fourth == pytest.approx(3.0, abs=4 * 96**0.5 / 200)


def test_adaptive_noise_is_in_units_of_the_weight():
    for plain, adaptive in zip(_noise(), _noise(adaptive=True), strict=True):
        np.testing.assert_array_equal(adaptive, 2 * plain)


def test_noise_of_variables_is_that_of_their_values():
    for size in (2, 3, 4):  # as of several models, one after the other
        values = [tf.fill([size, 2 * size], -2.0), tf.fill([size], 3.0)]
        given = ([tf.Variable(value) for value in values], values)
        found, expected = (
            perturbations.gaussian(weights, seed=1, draw=2, adaptive=True)
            for weights in given
        )
        for noise, same, value in zip(found, expected, values, strict=True):
            np.testing.assert_array_equal(noise, same)
            assert noise.shape == value.shape


def test_noise_has_the_type_of_the_weight():
    (noise,) = perturbations.gaussian(
        [tf.ones([3], tf.float64)], seed=0, draw=0, adaptive=True
    )
    assert noise.dtype == tf.float64


@pytest.mark.parametrize("quantized", [False, True])
def test_kernels_are_weights_but_no_bias_norm_or_step(quantized):
    model = _model()
    float_shapes = [tuple(v.shape) for v in perturbations.kernels(model)]
    assert float_shapes == [(3, 3, 2, 4), (3, 3, 4, 1), (16, 3)]
    if quantized:
        model = _weights_only(model)
        steps = [v for v in model.weights if "log_step" in v.name]
        assert {v.shape.rank for v in steps} == {0, 4}
    chosen = perturbations.kernels(model)
    assert sorted(tuple(v.shape) for v in chosen) == sorted(float_shapes)
    for name in ("bias", "log_step", "gamma", "beta", "moving"):
        assert not any(name in variable.name for variable in chosen)


def test_points():
    model = _weights_only(_model())
    assert perturbations.measured_model(model, "latent") is model
    deployed = perturbations.measured_model(model, "deployed")
    assert "norm" not in {layer.name for layer in deployed.layers}
    for kernel in perturbations.kernels(deployed):
        assert len(np.unique(kernel.numpy())) <= 3 * kernel.shape[-1] * 4
    with pytest.raises(errors.ConfigError, match="'deployd'.*'deployed'"):
        perturbations.measured_model(model, "deployd")
