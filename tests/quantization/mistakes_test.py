"""What a new user passes by mistake is told in one sentence."""

import re

import pytest

from qgen_tf import errors
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantization_report,
    quantize_model,
)
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


@pytest.mark.parametrize("data", [None, 512])
def test_what_are_no_data(data):
    model = quantize_model(harness.tiny_nin(), harness.W8A8)
    kind = type(data).__name__
    with _told(errors.DataError, f"are {kind}: pass a tf.data.Dataset"):
        calibrate(model, data)
