import functools

import numpy as np
import pytest

from export import interpreter, tflite
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness

layers = keras.layers


@functools.cache
def _file(scheme):
    model = harness.randomize_norms(harness.residual())
    if scheme is None:
        return tflite.convert(inference_model(model))
    twin = quantize_model(model, scheme)
    calibrate(twin, harness.calibration_data())
    return tflite.convert(inference_model(twin))


@pytest.mark.parametrize("scheme", [None, BitScheme(4, 8)])
def test_batches_and_padding_do_not_matter(scheme):
    images = harness.test_images()[:100]
    one = interpreter.Interpreter(_file(scheme), batch_size=1)
    wanted = one.predict(images)
    assert wanted.shape == (100, 10) and wanted.dtype == np.float32
    for batch_size in (7, 64, 200):
        runtime = interpreter.Interpreter(_file(scheme), batch_size=batch_size)
        for count in (100, 1, 65):
            found = runtime.predict(images[:count])
            np.testing.assert_allclose(
                found, wanted[:count], atol=1e-4 if scheme is None else 0
            )


def test_order_and_threads_do_not_matter():
    images = harness.test_images()[:100]
    one = interpreter.Interpreter(_file(BitScheme(4, 8)), num_threads=1)
    two = interpreter.Interpreter(_file(BitScheme(4, 8)), num_threads=2)
    wanted = one.predict(images)
    np.testing.assert_array_equal(two.predict(images), wanted)
    np.testing.assert_array_equal(one.predict(images[::-1]), wanted[::-1])


@functools.cache
def _identity():
    """Returns the file of a network that returns its rounded input."""
    inputs = layers.Input((4,), name="x")
    dense = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    twin = quantize_model(keras.Model(inputs, dense(inputs)), BitScheme())
    calibrate(twin, [np.float32(254.0 * np.eye(4) - 127.0)])
    for variable in twin.variables:
        if "output_log_step" in variable.name:
            variable.assign(0.0)
    network = inference_model(twin)
    return network, tflite.convert(network)


def test_inputs_are_rounded_and_clipped():
    network, content = _identity()
    step = harness.output_step(network)
    np.testing.assert_allclose(step, 1.0, rtol=1e-5)
    runtime = interpreter.Interpreter(content)
    assert runtime.output_step_size == np.float32(step)
    values = np.float32(
        # a cast would give 0, 1, 2, 3 and wrap around the last ones
        [[0.6, 1.4, 2.6, 3.9], [-0.6, -1.4, -2.6, -3.9], [1e4, -1e4, 200, -129]]
    )
    wanted = [[1, 1, 3, 4], [-1, -1, -3, -4], [127, -128, 127, -128]]
    np.testing.assert_allclose(runtime.predict(values), wanted, rtol=1e-5)
    assert network.model.get_layer("x_input_grid").step_size == 1.0
    halves = np.float32([[0.5, 1.5, 2.5, -0.5]])
    np.testing.assert_allclose(
        runtime.predict(halves), [[0, 2, 2, 0]], atol=1e-4
    )


def test_float_file_has_no_step():
    runtime = interpreter.Interpreter(_file(None))
    assert runtime.output_step_size is None


@pytest.mark.parametrize(
    "content", [b"", b"junk", bytes(4) + b"TFL3" + bytes(64)]
)
def test_what_is_not_a_model(content):
    with pytest.raises(errors.ExportError, match="cannot run this file"):
        interpreter.Interpreter(content)
