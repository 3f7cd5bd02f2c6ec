"""What a new user passes by mistake is told in one sentence."""

import re

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import compat, errors
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantization_report,
    quantize_model,
)
from qgen_tf.training import reestimate_norms
from tests import harness


def _told(error, message):
    """Returns the check that an error is one sentence with the message."""
    return pytest.raises(error, match=rf"^(?!.*\n).*{message}.*\.$")


@pytest.mark.parametrize(
    "scheme", [None, 4, (4, 8), {"weight_bits": 4}, BitScheme]
)
def test_what_is_no_scheme(scheme):
    message = f"scheme is {re.escape(repr(scheme))}: pass a BitScheme"
    with _told(errors.ConfigError, message):
        quantize_model(harness.tiny_nin(), scheme)


@pytest.mark.parametrize(
    "function",
    [
        lambda given: quantize_model(given, harness.W8A8),
        lambda given: calibrate(given, harness.calibration_data()),
        inference_model,
        quantization_report,
    ],
)
@pytest.mark.parametrize("given", [None, 4, "runs/quickstart", harness.W8A8])
def test_what_is_no_model(function, given):
    kind = type(given).__name__
    with _told(errors.ModelError, f"tf_keras, found a .*{kind}: build it"):
        function(given)


def test_a_network_that_is_deployed_already():
    network = inference_model(harness.tiny_nin())
    with _told(errors.ModelError, "'nin' is a deployed network already"):
        inference_model(network)


IMAGES = harness.train_images()[:8]


@pytest.mark.parametrize("data", [None, 512])
@pytest.mark.parametrize("reader", [calibrate, reestimate_norms])
def test_what_are_no_data(reader, data):
    model = quantize_model(harness.tiny_nin(), harness.W8A8)
    kind = type(data).__name__
    with _told(errors.DataError, f"are {kind}: pass a tf.data.Dataset"):
        reader(model, data)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (3, r"has the shape \(\); model 'nin' takes \(None, 8, 8, 1\)"),
        ("a", r"has the shape \(\)"),
        ((), "has 0 tensors of images; model 'nin' takes 1"),
        ([IMAGES, IMAGES], "has 2 tensors"),
        (IMAGES[0], r"has the shape \(8, 8, 1\)"),
        (IMAGES[:, :5], r"has the shape \(8, 5, 8, 1\)"),
        (IMAGES.astype(str), "is of <U"),
        (IMAGES.astype(object), "is of object"),
        (IMAGES * 1j, "is of complex64: pass arrays or dense tensors"),
        (tf.sparse.from_dense(IMAGES), "is of object"),
        (IMAGES[:0], "is empty: leave it out"),
        (np.where(IMAGES > 0.9, np.inf, IMAGES), "contains NaN or infinity"),
    ],
)
def test_batches_that_are_none(batch, message):
    model = quantize_model(harness.tiny_nin(), harness.W8A8)
    with _told(errors.DataError, message):
        calibrate(model, [batch])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": "4"}, "weight_bits is '4': choose 1 to 8 bits"),
        ({"weight_bits": 4.0}, "weight_bits is 4.0: choose"),
        ({"weight_bits": np.array([4, 8])}, "weight_bits is array"),
        ({"overrides": None}, r"overrides is None: .* or \(\) for none"),
        ({"overrides": "conv*"}, "overrides is 'conv\\*': write a tuple"),
        ({"overrides": 5}, "overrides is 5: write a tuple"),
        ({"step_learning_rate": "a"}, "step_learning_rate is 'a': it must"),
        ({"step_learning_rate": float("inf")}, "is inf: it must be a number"),
        ({"quantizer": []}, r"quantizer \[\] is unknown: choose"),
        ({"quantizer": None}, "quantizer None is unknown: choose"),
        ({"per_axis": "yes"}, "per_axis is 'yes': write True or False"),
        ({"per_axis_dense": 3}, "per_axis_dense is 3: write True or False"),
    ],
)
def test_settings_of_a_scheme(settings, message):
    with _told(errors.ConfigError, message):
        BitScheme(**settings)


@pytest.mark.parametrize(
    "function",
    [
        compat.require_legacy,
        lambda given: quantize_model(given, harness.W8A8),
        lambda given: calibrate(given, harness.calibration_data()),
    ],
)
def test_a_deployed_network_has_a_model(function):
    network = inference_model(harness.tiny_nin())
    with _told(errors.ModelError, r"InferenceModel, .*: pass its `\.model`"):
        function(network)
