"""Deployed networks of untrained models, and what their files must be."""

import numpy as np

from export import flatbuffer, tflite, weights
from export.interpreter import Interpreter
from export.model_file import pack, parse
from export.runtime_model import runtime_model
from qgen_tf.quantization import calibrate, inference_model, quantize_model
from tests import harness


def deployed(model, scheme):
    """Returns the deployed network of the calibrated twin of a model."""
    twin = quantize_model(model, scheme)
    calibrate(twin, harness.calibration_data())
    return inference_model(twin)


def stored(content, storage):
    """Returns a file with its weights in another storage."""
    model = parse(content)
    weights.set_storage(model, storage)
    return pack(model)


def steps_off(network, content, images=None, **settings):
    """Returns how far file and network are apart, in steps of the output.

    Args:
      network: a deployed network of ten classes.
      content: its file.
      images: all test images if None.
      **settings: of the interpreter.
    """
    images = harness.test_images() if images is None else images
    wanted = runtime_model(network)(images).numpy()
    assert wanted.shape == (len(images), 10) and len(np.unique(wanted)) > 9
    interpreter = Interpreter(content, **settings)
    step = harness.output_step(network)
    np.testing.assert_allclose(interpreter.output_step_size, step, rtol=1e-6)
    off = np.abs(interpreter.predict(images) - wanted) / step
    np.testing.assert_allclose(off, np.rint(off), atol=1e-3)
    return np.rint(off)


def assert_file_agrees(network, *, most=1, share=0.01, allow_float=()):
    """Asserts that the file holds and computes what the network does.

    Args:
      network: a deployed network.
      most: largest difference of a logit, in steps of the output.
      share: largest share of logits that differ.
      allow_float: patterns of layers that may compute in float.

    Returns:
      The object tree of the file.
    """
    content = tflite.convert(network, allow_float=allow_float)
    flatbuffer.check(network, content, allow_float)
    model = parse(content)
    assert bool(flatbuffer.float_operators(model)) == bool(allow_float)
    off = steps_off(network, content)
    assert off.max() <= most
    assert off.astype(bool).mean() <= share
    return model
