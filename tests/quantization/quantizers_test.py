"""How step sizes start, learn and stay positive."""

import inspect
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import quantizers
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig

layers = keras.layers
QUANTIZERS = [
    quantizers.LSQWeightQuantizer(3, axes=(-2, -1)),
    quantizers.LSQWeightQuantizer(8),
    quantizers.LSQActivationQuantizer(5, signed=True),
    quantizers.LSQActivationQuantizer(4, signed=False),
]


def _weight(quantizer, values):
    """Returns a wrapped layer whose weight has the values, and their step."""
    values = np.asarray(values, np.float32)
    if values.ndim == 2:
        layer = layers.Dense(values.shape[-1], use_bias=False)
        name, inputs = "kernel", (None, values.shape[0])
    elif len(quantizer.axes) == 2:
        layer = layers.DepthwiseConv2D(
            values.shape[:2], depth_multiplier=values.shape[3], use_bias=False
        )
        name, inputs = "depthwise_kernel", (None, 8, 8, values.shape[2])
    else:
        layer = layers.Conv2D(
            values.shape[-1], values.shape[:2], use_bias=False
        )
        name, inputs = "kernel", (None, 8, 8, values.shape[2])
    layer.build(inputs)
    layer.set_weights([values])
    wrapper = tfmot.quantization.keras.QuantizeWrapperV2(
        layer, LayerQuantizeConfig({name: quantizer})
    )
    wrapper.build(inputs)
    ((variable, _, step_vars),) = wrapper._weight_vars
    return variable, step_vars


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("shape", "axes", "shared"),
    [
        ((3, 3, 4, 6), (-1,), (0, 1, 2)),
        ((3, 3, 4, 2), (-2, -1), (0, 1)),
        ((3, 3, 4, 6), (), (0, 1, 2, 3)),
        ((40, 3), (), (0, 1)),
    ],
)
def test_first_step_sizes_are_of_the_weights(bits, shape, axes, shared):
    generator = np.random.default_rng(bits)
    values = generator.standard_t(3, size=shape)
    values[..., -1] *= 0.01
    quantizer = quantizers.LSQWeightQuantizer(bits, axes=axes)
    _, step_vars = _weight(quantizer, values)
    high = 2 ** (bits - 1) - 1
    magnitude = np.abs(values.astype(np.float32)).astype(np.float64)
    wanted = np.minimum(
        2 * magnitude.mean(shared, keepdims=bool(axes)) / np.sqrt(high),
        magnitude.max(shared, keepdims=bool(axes)) / high,
    )
    found = quantizer.step_size(step_vars).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=3e-6)


def test_gradient_descent_moves_a_step_size_as_lsq_does():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 3, 4, 6)).astype(np.float32)
    upstream = 1e-3 * generator.normal(size=values.shape).astype(np.float32)
    quantizer = quantizers.LSQWeightQuantizer(3, axes=(-1,))
    weight, step_vars = _weight(quantizer, values)
    step_vars["log_step"].assign_sub(0.1 * tf.ones([1, 1, 1, 6]))
    step = quantizer.step_size(step_vars).numpy().astype(np.float64)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(upstream * quantizer(weight, True, step_vars))
    log_step = step_vars["log_step"]
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.apply_gradients([(tape.gradient(loss, log_step), log_step)])

    ratio = values / step
    inside = np.abs(ratio) <= 3
    slope = np.where(inside, np.rint(ratio) - ratio, np.clip(ratio, -3, 3))
    of_step = (upstream * slope).sum((0, 1, 2), keepdims=True)
    scale = 1.0 / math.sqrt(3 * 3 * 4 * 3)  # weights a step size, highest level
    gradient = scale * of_step / step
    assert 1e-4 < np.abs(gradient).max() < 0.1
    moved = np.log(quantizer.step_size(step_vars).numpy() / step)
    np.testing.assert_allclose(moved, -0.5 * gradient, rtol=1e-3, atol=2e-7)


def test_the_scale_of_activation_gradients_counts_features_not_examples():
    quantizer = quantizers.LSQActivationQuantizer(2, signed=False)
    steps = {"log_step": tf.Variable(math.log(0.5))}
    values = np.random.default_rng(0).uniform(0.0, 1.5, size=(7, 4, 5))
    values = tf.constant(values, tf.float32)
    with tf.GradientTape() as tape:
        loss = 1e-3 * tf.reduce_sum(quantizer(values, True, steps))
    ratio = values.numpy() / 0.5
    of_step = 1e-3 * (np.rint(ratio) - ratio).sum()
    gradient = tape.gradient(loss, steps["log_step"])
    wanted = of_step / 0.5 / math.sqrt(4 * 5 * 3)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4)
    assert abs(wanted) > 1e-5


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.SGD, keras.optimizers.Adam],
)
def test_no_update_kills_a_step_size(optimizer, bits, sign):
    optimizer = optimizer(1e4)
    quantizer = quantizers.LSQWeightQuantizer(bits, axes=(-1,))
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    weight, step_vars = _weight(quantizer, values)
    log_step = step_vars["log_step"]
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = sign * tf.reduce_sum(
                tf.square(quantizer(weight, True, step_vars) - 1.0)
            )
        gradient = tape.gradient(loss, log_step)
        assert np.isfinite(gradient).all()
        optimizer.apply_gradients([(gradient, log_step)])
        step = quantizer.step_size(step_vars).numpy()
        assert np.isfinite(step).all() and (step > 1e-9).all()
        quantized = quantizer(weight, True, step_vars).numpy()
        assert np.isfinite(quantized).all()


def test_a_channel_of_zeros_stays_finite():
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    values[..., 2] = 0.0
    quantizer = quantizers.LSQWeightQuantizer(4, axes=(-1,))
    weight, step_vars = _weight(quantizer, values)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(quantizer(weight, True, step_vars)))
        variables = [weight, step_vars["log_step"]]
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        weight.assign_add(tf.ones_like(weight) * 1e-3)
    for variable in variables:
        assert np.isfinite(variable.numpy()).all()


def test_observer_gathers_the_statistics_of_all_batches():
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    observer = quantizers.Observer()
    for batch in (values[:2], values[2:]):
        observer.update(batch)
    assert observer.count == 35
    assert observer.max_abs == np.abs(values).max()
    np.testing.assert_allclose(
        observer.sum_abs, np.abs(values).sum(dtype=np.float64)
    )


def test_activations_without_a_step_size_are_refused():
    quantizer = quantizers.LSQActivationQuantizer(4, signed=True)
    wrapper = tfmot.quantization.keras.QuantizeWrapperV2(
        layers.Activation("linear", name="identity"),
        LayerQuantizeConfig(output_quantizer=quantizer),
    )
    with pytest.raises(errors.ModelError, match="identity.*call.*calibrate"):
        wrapper(tf.ones([2, 3]))
    with quantizers.allow_uncalibrated():
        wrapper(tf.ones([2, 3]))
    with pytest.raises(errors.ModelError, match="calibrate"):
        wrapper(tf.ones([2, 3]))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_every_argument_of_an_activation_quantizer_counts(bits, signed):
    quantizer = quantizers.LSQActivationQuantizer(bits, signed=signed)
    steps = {"log_step": tf.Variable(0.0)}
    values = tf.reshape(tf.range(-300.0, 300.0), (1, -1))
    levels = np.unique(quantizer(values, False, steps))
    assert len(levels) == 2**bits
    assert levels.min() == (-(2 ** (bits - 1)) if signed else 0)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_config_round_trip(quantizer):
    config = quantizer.get_config()
    arguments = inspect.signature(type(quantizer).__init__).parameters
    assert set(config) == set(arguments) - {"self"}
    again = type(quantizer).from_config(config)
    assert again.get_config() == config
    legacy = keras.utils.legacy
    again = legacy.deserialize_keras_object(
        legacy.serialize_keras_object(quantizer)
    )
    assert type(again) is type(quantizer)
    assert again.get_config() == config
    assert (again.low, again.high) == (quantizer.low, quantizer.high)


def test_half_precision_goes_in_and_out():
    quantizer = quantizers.LSQActivationQuantizer(8, signed=True)
    steps = {"log_step": tf.Variable(math.log(0.1))}
    values = tf.constant([[0.31, -0.26]], tf.bfloat16)
    found = quantizer(values, False, steps)
    assert found.dtype == tf.bfloat16
    wanted = tf.cast(tf.constant([[0.3, -0.3]]), tf.bfloat16)
    np.testing.assert_array_equal(found, wanted)
