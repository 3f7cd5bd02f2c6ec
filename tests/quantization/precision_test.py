"""Quantized models in half precision, by hand-written loops, and under XLA."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    QUANTIZERS,
    BitScheme,
    calibrate,
    loss_scale,
    quantize_model,
)
from qgen_tf.quantization.quantize import wrappers
from qgen_tf.training import QATModel
from tests import harness


def _twin(policy="float32", quantizer="lsq", build=harness.small_nin):
    """Returns a W4A4 twin that computes in a policy of Keras."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = build()
        model.set_weights(harness.trained(build).get_weights())
        twin = quantize_model(model, BitScheme(4, 4, quantizer=quantizer))
        calibrate(twin, harness.calibration_data())
    finally:
        keras.mixed_precision.set_global_policy(before)
    return twin


def _examples():
    images, labels = harness.digits()
    return images[:640], labels[:640]


def _batch():
    images, labels = harness.digits()
    return images[:64], labels[:64]


def _clipping_twin(quantizer="lsq"):
    """Returns a twin whose largest values are out of range.

    The first step sizes put them on the very end of it, where one unit in the
    last place decides about their gradient.
    """
    twin = _twin(quantizer=quantizer)
    for variable in twin.trainable_variables:
        if "log_step" in variable.name:
            variable.assign_sub(tf.fill(variable.shape, 0.05))
    return twin


def _float32_loss(labels, logits):
    return keras.losses.sparse_categorical_crossentropy(
        labels, tf.cast(logits, tf.float32), from_logits=True
    )


def _losses_of_fit(model, steps, **settings):
    """Returns the loss before each of some steps on one batch."""
    model.compile(keras.optimizers.SGD(0.01, 0.9), harness.loss(), **settings)
    history = model.fit(
        *_batch(), batch_size=64, epochs=steps, shuffle=False, verbose=0
    )
    return history.history["loss"]


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_quantizers_compute_in_float32(quantizer):
    exact = _twin(quantizer=quantizer)
    mixed = _twin("mixed_bfloat16", quantizer)
    assert mixed.compute_dtype == "bfloat16"
    mixed(harness.test_images()[:1])
    weights = 0
    for wanted, found in zip(wrappers(exact), wrappers(mixed), strict=True):
        assert {v.dtype for v in found.trainable_weights} <= {tf.float32}
        for one, other in zip(
            wanted._weight_vars, found._weight_vars, strict=True
        ):
            grid, again = _grid(*one), _grid(*other)
            np.testing.assert_array_equal(again.levels, grid.levels)
            np.testing.assert_array_equal(again.step_size, grid.step_size)
            # what the layer computed with: rounded to the grid first, and to
            # bfloat16 only then
            (name,) = found.quantize_config.weight_quantizers
            used = getattr(found.layer, name)
            assert used.dtype == tf.bfloat16
            tf.debugging.assert_equal(used, tf.cast(grid.values, tf.bfloat16))
            weights += 1
    assert weights == 4


def _grid(weight, quantizer, variables):
    return quantizer.grid(weight, variables)


@pytest.mark.slow
def test_an_epoch_in_bfloat16_is_close_to_one_in_float32():
    losses = []
    for policy in ("float32", "mixed_bfloat16"):
        model = _twin(policy)
        before = harness.steps_of(model)
        model.compile(keras.optimizers.SGD(0.01, 0.9), _float32_loss)
        history = model.fit(*_examples(), shuffle=False, verbose=0)
        losses += history.history["loss"]
        after = harness.steps_of(model)
        moved = [np.abs(np.log(after[k] / before[k])).max() for k in before]
        assert len(moved) > 8 and 0.01 < max(moved) < 0.5
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def _moved(model, step):
    """Returns how far a step moved the logarithm of each step size."""
    before = harness.steps_of(model)
    step(model, *_batch())
    after = harness.steps_of(model)
    return np.concatenate(
        [np.log(after[name] / before[name]).ravel() for name in before]
    )


def _train_on_batch(model, images, labels):
    student = QATModel(model)
    student.compile(keras.optimizers.SGD(0.01), _float32_loss)
    student.train_on_batch(images, labels)


def _loop_in_float16(model, images, labels):
    optimizer = keras.mixed_precision.LossScaleOptimizer(
        keras.optimizers.SGD(0.01)
    )
    variables = model.trainable_variables
    with loss_scale(optimizer), tf.GradientTape() as tape:
        losses = _float32_loss(labels, model(images, training=True))
        scaled = optimizer.get_scaled_loss(tf.reduce_mean(losses))
        gradients = tape.gradient(scaled, variables)
    gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


@pytest.mark.parametrize(
    "step",
    [_train_on_batch, pytest.param(_loop_in_float16, marks=pytest.mark.full)],
)
def test_a_scaled_loss_moves_step_sizes_as_one_that_is_not(step):
    wanted = _moved(_twin(), _train_on_batch)
    found = _moved(_twin("mixed_float16"), step)
    # by the learning rate of 0.01 times a gradient of at most 0.1
    assert np.abs(wanted).max() == pytest.approx(1e-3, rel=1e-3)
    assert np.abs(found).max() == pytest.approx(1e-3, rel=1e-3)
    assert (np.abs(wanted) < 9e-4).sum() > 8
    # float16 activations round otherwise here and there
    assert np.median(np.abs(found - wanted)) < 1e-5
    assert np.mean(np.abs(found - wanted) < 1e-4) > 0.8


def test_a_scaled_loss_must_be_told():
    images, labels = _batch()
    model = _twin("mixed_float16")
    model.predict(images, verbose=0)
    model.compile("sgd", _float32_loss)
    with pytest.raises(errors.ModelError, match=r"train qgen_tf\.QATModel"):
        model.train_on_batch(images, labels)


def test_a_loop_written_by_hand_trains_as_fit():
    images, labels = map(tf.constant, _batch())
    model, loss = _clipping_twin(), harness.loss()
    optimizer = keras.optimizers.SGD(0.01, 0.9)
    losses = []
    for _ in range(4):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        losses.append(float(value))
    assert losses[3] < losses[0]
    wanted = _losses_of_fit(_clipping_twin(), 4)
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantizer", ["lsq", pytest.param("minmax", marks=pytest.mark.full)]
)
def test_compiled_by_xla(quantizer):
    wanted, found = (
        _losses_of_fit(_clipping_twin(quantizer), 3, jit_compile=compiled)
        for compiled in (False, True)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("quantizer", harness.QUANTIZERS)
def test_an_epoch_lowers_the_loss(quantizer):
    images, labels = _examples()
    model = _twin(quantizer=quantizer, build=harness.tiny_nin)
    before = float(harness.loss()(labels, model(images)))
    model.compile(keras.optimizers.Adam(1e-3), harness.loss())
    model.fit(images, labels, verbose=0)
    after = float(harness.loss()(labels, model(images)))
    assert after < 0.8 * before
