"""What a new user passes by mistake is told in one sentence."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import export
from export import sandbox
from qgen_tf import errors, quantization
from qgen_tf.compat import keras
from tests import harness

IMAGES, LABELS = (part[:12] for part in harness.digits())


def _batches(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(6)


GOOD = _batches(IMAGES, LABELS)


def _calibrated(scheme):
    model = quantization.quantize_model(harness.tiny_nin(), scheme)
    quantization.calibrate(model, GOOD)
    return model


@pytest.fixture(scope="module")
def deployed():
    """Returns (model, network, content) of a twin that was not trained."""
    model = _calibrated(harness.W8A8)
    network = quantization.inference_model(model)
    return model, network, export.convert(network)


def _told(error, message):
    """Returns the check that an error is one sentence with the message."""
    return pytest.raises(error, match=rf"^(?!.*\n).*{message}.*\.$")


def _of_networks(model, content):
    return {
        "convert": export.convert,
        "check": lambda network: export.check(network, content),
        "explain": lambda network: export.explain(network, content, IMAGES),
        "verify": lambda network: export.verify(
            model, network, content, GOOD, GOOD
        ),
    }


@pytest.mark.parametrize("function", ["convert", "check", "explain", "verify"])
def test_what_is_no_deployed_network(deployed, function):
    model, _, content = deployed
    for given in (model, content, None, "m.tflite"):
        message = f"deployed one, not {type(given).__name__}: pass qgen_tf"
        with _told(errors.ExportError, message):
            _of_networks(model, content)[function](given)


def _of_contents(model, network):
    return {
        "Interpreter": export.Interpreter,
        "expand": lambda content: export.Interpreter(
            content, expand_low_bits=True
        ),
        "check": lambda content: export.check(network, content),
        "explain": lambda content: export.explain(network, content, IMAGES),
        "verify": lambda content: export.verify(
            model, network, content, GOOD, GOOD
        ),
        "probe": sandbox.probe,
    }


@pytest.mark.parametrize(
    "function",
    ["Interpreter", "expand", "check", "explain", "verify", "probe"],
)
def test_what_is_no_content(deployed, function):
    model, network, content = deployed
    for given in (
        "m.tflite",
        pathlib.Path("m.tflite"),
        None,
        network,
        bytearray(content),
    ):
        message = f"must be bytes, not {type(given).__name__}: pass pathlib"
        with _told(errors.ExportError, message):
            _of_contents(model, network)[function](given)


@pytest.mark.parametrize("given", [None, 4, "runs/quickstart"])
def test_verify_without_a_model(deployed, given):
    _, *rest = deployed
    with _told(errors.ModelError, f"found a .*{type(given).__name__}"):
        export.verify(given, *rest, GOOD, GOOD)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((IMAGES, LABELS), "must be a tf.data.Dataset, not tuple"),
        (GOOD.unbatch(), "single examples: pass batches of them"),
        (_batches(IMAGES, np.eye(10)[LABELS]), "take tf.argmax"),
        (_batches(IMAGES[:, :6], LABELS), r"takes \(None, 8, 8, 1\)"),
        (_batches(IMAGES, LABELS + 1), "has the label 10, and"),
        (GOOD.take(0), "is empty"),
    ],
)
@pytest.mark.parametrize("place", ["train", "test", "corrupted"])
def test_data_to_verify_on(deployed, place, data, message):
    sets = {"train": GOOD, "test": GOOD, place: data}
    with _told(errors.DataError, message):
        export.verify(*deployed, **sets)


@pytest.mark.parametrize("function", ["predict", "explain"])
def test_images(deployed, function):
    _, network, content = deployed
    call = {
        "predict": export.Interpreter(content).predict,
        "explain": lambda images: export.explain(network, content, images),
    }[function]
    for images, message in (
        (IMAGES.tolist(), "are float64: pass them in float32"),
        (IMAGES.astype(np.uint8), "are uint8: pass them in float32"),
        (None, "are object: pass them in float32"),
        (IMAGES[0], r"have shape \(8, 8, 1\): the file takes"),
        (IMAGES[:0], r"have shape \(0, 8, 8, 1\): the file takes"),
        (IMAGES[:, :6], r"have shape \(12, 6, 8, 1\): the file takes"),
    ):
        with _told(errors.DataError, message):
            call(images)


def test_settings(deployed):
    _, network, content = deployed
    with _told(errors.ExportError, "batch_size is 0: let it be 1 or more"):
        export.Interpreter(content, batch_size=0)
    for kernels in ("gpu", [], None):
        with _told(errors.ExportError, "kernels .* are unknown: choose one"):
            export.explain(network, content, IMAGES, kernels=kernels)
    for storage in ("int3", [], {}, None):
        with _told(errors.ExportError, "storage .* is unknown: choose one of"):
            export.convert(network, storage=storage)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("batch_size", ["a", [], 1.5]),
        ("num_threads", ["a", [], 1.5]),
        ("kernels", [None, [], {}]),
        ("expand_low_bits", [None, "no", 1]),
    ],
)
def test_settings_of_the_wrong_type(deployed, name, wrong):
    *_, content = deployed
    for value in wrong:
        message = rf"Interpreter has {name}=.*: write"
        with _told(errors.ConfigError, message):
            export.Interpreter(content, **{name: value})


def test_a_pattern_in_the_place_of_patterns():
    scheme = quantization.BitScheme(overrides=(("block1_*", 32, 32),))
    network = quantization.inference_model(_calibrated(scheme))
    with _told(errors.ExportError, r"pass a list, \['block1_\*'\]"):
        export.convert(network, allow_float="block1_*")


def test_verify_of_probabilities():
    logits = harness.tiny_nin()
    outputs = keras.layers.Softmax()(logits.output)
    model = keras.Model(logits.input, outputs, name="ended")
    twin = quantization.quantize_model(model, harness.W8A8)
    quantization.calibrate(twin, GOOD)
    network = quantization.inference_model(twin)
    for given in (model, twin):
        with _told(
            errors.ModelError, "'ended' ends in probabilities, .*: leave"
        ):
            export.verify(given, network, b"", GOOD, GOOD)


@pytest.mark.parametrize("margin", ["a", None, -1, 0, np.nan, np.inf])
def test_margins(deployed, margin):
    with _told(errors.ConfigError, "margin is .*: set it to"):
        export.verify(*deployed, GOOD, GOOD, margin=margin)


@pytest.mark.parametrize("progress", [None, 3])
def test_what_shows_no_progress(deployed, progress):
    with _told(errors.ConfigError, f"progress is {progress}: pass a function"):
        export.verify(*deployed, GOOD, GOOD, progress=progress)
