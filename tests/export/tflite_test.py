"""The file computes what the deployed network computes, to one step."""

import numpy as np
import pytest
import tensorflow as tf

from export import flatbuffer, tflite
from export.interpreter import Interpreter
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import resnet18
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness

layers = keras.layers


def _twin(build, scheme):
    """Returns the deployed network of an untrained model, odd norms too."""
    twin = quantize_model(harness.randomize_norms(build()), scheme)
    calibrate(twin, harness.calibration_data())
    return inference_model(twin)


def _assert_file_agrees(network, most=1):
    """Asserts at most `most` steps of difference in every logit of 400."""
    content = tflite.convert(network)
    flatbuffer.check(network, content)
    assert flatbuffer.float_operators(flatbuffer.parse(content)) == []
    images = harness.digits()[0][:400]
    wanted = network.model(images).numpy()
    interpreter = Interpreter(content)
    step = harness.output_step(network)
    np.testing.assert_allclose(interpreter.output_step_size, step, rtol=1e-6)
    off = np.abs(interpreter.predict(images) - wanted) / step
    assert off.shape == (400, 10) and len(np.unique(wanted)) > 9
    np.testing.assert_allclose(off, np.rint(off), atol=1e-3)
    assert off.max() < most + 0.5
    # where Add and AveragePooling2D round, the runtime has integers to do it
    assert (off > 0.5).mean() < 0.15
    return flatbuffer.parse(content)


def _dense_norms():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Dense(6, name="pointwise", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.AveragePooling2D()(x)
    x = layers.Dense(20, name="hidden")(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(9, name="plain", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def _groups():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, name="block/conv", activation="relu")(inputs)
    x = layers.Conv2D(6, 3, groups=2, dilation_rate=2, name="conv")(x)
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def _resnet18():
    return resnet18((8, 8, 1), 10, width=8)


_QUICK = [
    (harness.mobile, BitScheme(4, 4)),
    (harness.residual, BitScheme(3, 8, per_axis=False)),
    (harness.residual, BitScheme(8, 4)),  # signed 4 bits before Add
    (harness.tiny_nin, BitScheme(2, 8)),
    (_dense_norms, BitScheme(4, 8)),
    (_groups, BitScheme(8, 8)),
]
_BITS = [(8, 8), (4, 8), (3, 8), (2, 8), (4, 4), (8, 4), (5, 6), (2, 2), (7, 3)]
_SLOW = [
    (build, BitScheme(*bits, per_axis=per_axis))
    for build, per_axis, all_bits in (
        (harness.residual, True, _BITS),
        (harness.tiny_nin, False, [(8, 8), (3, 8), (2, 2)]),
        (harness.mobile, False, [(8, 8), (7, 3)]),
    )
    for bits in all_bits
]


def _name(value):
    return getattr(value, "__name__", None) or (
        f"w{value.weight_bits}a{value.activation_bits}"
        f"{'' if value.per_axis else '-tensor'}"
    )


@pytest.mark.parametrize(("build", "scheme"), _QUICK, ids=_name)
def test_file_and_network(build, scheme):
    _assert_file_agrees(_twin(build, scheme))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "scheme"), _SLOW, ids=_name)
def test_every_file_and_network(build, scheme):
    _assert_file_agrees(_twin(build, scheme))


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", [BitScheme(4, 4), BitScheme(8, 8, per_axis=False)], ids=_name
)
def test_eight_sums_in_a_row(scheme):
    """Each sum may be rounded the other way, and the next one adds to it."""
    _assert_file_agrees(_twin(_resnet18, scheme), most=4)


@pytest.mark.slow
@pytest.mark.parametrize("build", [harness.tiny_nin, harness.mobile])
@pytest.mark.parametrize("bits", [(8, 8), (2, 4)])
def test_trained_file_and_network(build, bits):
    twin = harness.quantization_aware(build, BitScheme(*bits))
    _assert_file_agrees(inference_model(twin))


def test_levels_of_two_bits_are_stored_as_they_are():
    network = _twin(harness.tiny_nin, BitScheme(2, 8))
    file = flatbuffer.parse(tflite.convert(network))
    for weight in flatbuffer.read_weights(file):
        inner = not ("logits" in weight.path or "block0_spatial" in weight.path)
        levels = set(np.unique(weight.values))
        assert (levels <= {-1, 0, 1}) == inner
        assert weight.values.dtype == np.int8
        assert weight.bias.dtype == np.int32
        assert not weight.zero_points.any()


@pytest.mark.parametrize(
    "build", [harness.mobile, harness.residual, _dense_norms]
)
def test_float_network(build):
    network = inference_model(harness.randomize_norms(build()))
    content = tflite.convert(network)
    flatbuffer.check(network, content)
    interpreter = Interpreter(content)
    assert interpreter.output_step_size is None
    images = harness.test_images()
    wanted = network.model(images).numpy()
    scale = np.abs(wanted).max()
    assert scale > 0.1
    np.testing.assert_allclose(
        interpreter.predict(images), wanted, atol=1e-4 * scale
    )
    for weight in flatbuffer.read_weights(flatbuffer.parse(content)):
        assert weight.values.dtype == np.float32


def test_float_weights_between_grids():
    network = _twin(harness.residual, BitScheme(32, 8))
    interpreter = Interpreter(tflite.convert(network))
    images = harness.test_images()
    off = interpreter.predict(images) - network.model(images).numpy()
    assert np.abs(off).max() < 1.5 * harness.output_step(network)


def test_conversion_leaves_the_network_alone():
    network = _twin(_groups, BitScheme(8, 8))
    before = [value.copy() for value in network.model.get_weights()]
    names = [layer.name for layer in network.model.layers]
    first, second = tflite.convert(network), tflite.convert(network)
    assert len(first) == len(second)
    assert [layer.name for layer in network.model.layers] == names
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def _ends(number_of_inputs, number_of_outputs):
    inputs = [layers.Input((8, 8, 1)) for _ in range(number_of_inputs)]
    total = layers.Add()(inputs) if number_of_inputs > 1 else inputs[0]
    x = layers.Conv2D(2, 3)(total)
    outputs = [layers.Dense(2)(x) for _ in range(number_of_outputs)]
    return inference_model(keras.Model(inputs, outputs))


def _softmax_last():
    inputs = layers.Input((8, 8, 1))
    x = layers.Dense(10)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Softmax(name="last")(x))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: _ends(2, 1), "has 2 inputs and 1 outputs"),
        (lambda: _ends(1, 2), "has 1 inputs and 2 outputs"),
        (
            lambda: _twin(harness.residual, BitScheme(8, 32)),
            "float input or output at layer 'zero_padding.*8 bits or fewer",
        ),
        (
            lambda: _twin(_softmax_last, BitScheme(8, 8)),
            "float input or output at layer 'last'",
        ),
    ],
)
def test_refused(network, message):
    with pytest.raises(errors.ExportError, match=message):
        tflite.convert(network())


class _Unknown(layers.Layer):
    def call(self, inputs):
        return tf.raw_ops.Bitcast(
            input=tf.bitwise.invert(
                tf.raw_ops.Bitcast(input=inputs, type=tf.int32)
            ),
            type=tf.float32,
        )


def test_operations_that_the_runtime_lacks():
    inputs = layers.Input((8, 8, 1))
    x = layers.Dense(10)(layers.Flatten()(_Unknown()(inputs)))
    network = inference_model(keras.Model(inputs, x, name="odd"))
    with pytest.raises(errors.ExportError, match="cannot convert 'odd'"):
        tflite.convert(network)
