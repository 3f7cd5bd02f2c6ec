"""Calibration, and training from what it has set."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness


def test_every_step_size_is_set_and_positive():
    model = quantize_model(
        harness.randomize_norms(harness.mobile()), harness.W4A4
    )
    before = harness.steps_of(model)
    unset = {name for name, value in before.items() if np.isnan(value).any()}
    assert unset == {name for name in before if "output_log_step" in name}
    calibrate(model, harness.calibration_data())
    after = harness.steps_of(model)
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert (value > 1e-6).all(), name
        if name not in unset:
            np.testing.assert_array_equal(value, before[name])


def _initial(values, high):
    magnitude = np.abs(values)
    return min(2 * magnitude.mean() / high**0.5, magnitude.max() / high)


def test_step_sizes_come_from_all_batches():
    model = quantize_model(harness.residual(), harness.W4A4)
    images = harness.train_images()[:256].copy()
    images[100:] *= 2.0
    calibrate(model, tf.data.Dataset.from_tensor_slices(images).batch(64))
    found = harness.steps_of(model)["quant_image_input/output_log_step:0"]
    np.testing.assert_allclose(found, _initial(images, 127), rtol=1e-5)


def test_every_quantizer_sees_quantized_activations(monkeypatch):
    model = quantize_model(harness.residual(), harness.W4A4)
    batch = harness.train_images()[:256]
    calibrate(model, tf.data.Dataset.from_tensors(batch))
    wrapper = model.get_layer("quant_shortcut")
    high = 7  # signed, 4 bits
    seen = []
    monkeypatch.setattr(wrapper, "_output_quantizers", [])
    call = wrapper.call
    monkeypatch.setattr(
        wrapper,
        "call",
        lambda *args, **kwargs: seen.append(call(*args, **kwargs)) or seen[-1],
    )
    model(batch, training=False)
    found = harness.steps_of(model)["quant_shortcut/output_log_step:0"]
    np.testing.assert_allclose(found, _initial(seen[0], high), rtol=1e-5)


def test_labels_are_ignored_and_a_second_calibration_starts_anew():
    model = quantize_model(harness.residual(), harness.W8A8)
    calibrate(model, harness.calibration_data())
    first = harness.steps_of(model)
    images = harness.train_images()[:256]
    wide = tf.data.Dataset.from_tensor_slices((3.0 * images, np.zeros(256)))
    calibrate(model, wide.batch(100))
    name = "quant_image_input/output_log_step:0"
    ratio = harness.steps_of(model)[name] / first[name]
    np.testing.assert_allclose(ratio, 3.0, rtol=1e-5)
    calibrate(model, harness.calibration_data())
    for key, value in harness.steps_of(model).items():
        np.testing.assert_array_equal(value, first[key])


def _batches(values):
    return tf.data.Dataset.from_tensors(np.float32(values))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (harness.calibration_data().take(0), "calibration data are empty"),
        (
            _batches(np.zeros((4, 8, 9, 1))),
            r"batch 0 .* has the shape \(4, 8, 9, 1\); .*\(None, 8, 8, 1\)",
        ),
        (_batches(np.zeros((8, 8, 1))), r"has the shape \(8, 8, 1\)"),
        (_batches(np.full((2, 8, 8, 1), np.nan)), "contains NaN or infinity"),
        (_batches(np.full((2, 8, 8, 1), np.inf)), "contains NaN or infinity"),
    ],
)
def test_data_that_does_not_fit(dataset, message):
    model = quantize_model(harness.residual(), harness.W8A8)
    with pytest.raises(errors.DataError, match=message):
        calibrate(model, dataset)


def test_models_that_cannot_be_calibrated():
    with pytest.raises(errors.ModelError, match="call quantize_model first"):
        calibrate(harness.residual(), harness.calibration_data())
    diverged = harness.residual()
    diverged.get_layer("logits").bias.assign(np.full(10, np.nan))
    model = quantize_model(diverged, BitScheme(8, 8))
    with pytest.raises(errors.ModelError, match="computes NaN or infinity"):
        calibrate(model, harness.calibration_data())


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model(harness.test_images()),
        lambda model: model.predict(harness.test_images(), verbose=0),
        lambda model: harness.fit(model, "sgd", 1),
        inference_model,
    ],
    ids=["call", "predict", "fit", "inference_model"],
)
def test_an_uncalibrated_model_is_refused(use):
    model = quantize_model(harness.residual(), harness.W8A8)
    with pytest.raises(errors.ModelError, match="call qgen_tf.calibrate"):
        use(model)


def test_a_calibrated_model_is_close_to_the_float_one():
    model = harness.trained(harness.tiny_nin)
    twin = harness.calibrated(harness.tiny_nin, harness.W8A8)
    images = harness.test_images()
    step = harness.steps_of(twin)["quant_logits/output_log_step:0"]
    off = np.abs(twin(images).numpy() - model(images).numpy()) / step
    assert off.mean() < 4 and off.max() < 20
    assert abs(harness.accuracy(twin) - harness.accuracy(model)) < 0.01


def test_training_with_momentum_keeps_all_step_sizes_alive():
    before = harness.steps_of(
        harness.calibrated(harness.tiny_nin, harness.W8A8)
    )
    twin = harness.quantization_aware(harness.tiny_nin, harness.W8A8)
    moved = {
        name: np.abs(np.log(value / before[name])).max()
        for name, value in harness.steps_of(twin).items()
    }
    assert len(moved) == len(before)
    assert max(moved.values()) < 1.0
    (still,) = (name for name, change in moved.items() if change == 0.0)
    assert still.startswith("quant_image_input/")  # data keep their range
    floating = harness.accuracy(harness.trained(harness.tiny_nin))
    # an epoch of SGD moves a few of 450 examples either way
    assert harness.accuracy(twin) > floating - 0.06


@pytest.mark.parametrize("file", ["w.weights.h5", "w.h5", "checkpoint"])
def test_saved_weights_of_a_rebuilt_model(tmp_path, file):
    scheme = BitScheme(4, 4)
    twin = harness.calibrated(harness.mobile, scheme)
    twin.save_weights(tmp_path / file)
    again = quantize_model(harness.mobile(), scheme)
    status = again.load_weights(tmp_path / file)
    if status is not None:
        status.assert_existing_objects_matched()
    images = harness.test_images()
    np.testing.assert_array_equal(twin(images), again(images))
    first, second = inference_model(twin), inference_model(again)
    np.testing.assert_array_equal(first.model(images), second.model(images))
