"""The file computes what the deployed network computes, to one step."""

import numpy as np
import pytest
import tensorflow as tf

from export import flatbuffer, tflite
from export.interpreter import Interpreter
from export.model_file import parse
from export.weights import read_weights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import resnet18
from qgen_tf.quantization import BitScheme, inference_model
from tests import harness
from tests.export.files import assert_file_agrees, deployed

layers = keras.layers


def _twin(build, scheme):
    """Returns the deployed network of an untrained model, odd norms too."""
    keras.utils.set_random_seed(0)
    return deployed(harness.randomize_norms(build()), scheme)


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
# those of scheme_test.py are left out
_SLOW = [
    pytest.param(build, BitScheme(*bits, per_axis=per_axis), marks=marks)
    for build, per_axis, all_bits, marks in (
        (harness.residual, True, [(5, 6), (7, 3)], ()),
        (harness.residual, True, [(2, 2)], pytest.mark.full),
        (harness.tiny_nin, False, [(2, 2)], ()),
        (harness.tiny_nin, False, [(3, 8)], pytest.mark.full),
        (harness.mobile, False, [(8, 8)], ()),
        (harness.mobile, False, [(7, 3)], pytest.mark.full),
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
    assert_file_agrees(_twin(build, scheme))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "scheme"), _SLOW, ids=_name)
def test_every_file_and_network(build, scheme):
    assert_file_agrees(_twin(build, scheme))


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [
        BitScheme(4, 4),
        pytest.param(BitScheme(8, 8, per_axis=False), marks=pytest.mark.full),
    ],
    ids=_name,
)
def test_eight_sums_in_a_row(scheme):
    """Each sum may be rounded the other way, and the next one adds to it."""
    assert_file_agrees(_twin(_resnet18, scheme), most=4, share=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "bits"),
    [
        pytest.param(harness.tiny_nin, (8, 8), marks=pytest.mark.full),
        (harness.mobile, (2, 4)),
    ],
)
def test_trained_file_and_network(build, bits):
    twin = harness.quantization_aware(build, BitScheme(*bits))
    assert_file_agrees(inference_model(twin))


def test_levels_of_two_bits_are_stored_as_they_are():
    network = _twin(harness.tiny_nin, BitScheme(2, 8))
    weights = read_weights(parse(tflite.convert(network)))
    for weight in weights:
        inner = weight.name not in (weights[0].name, weights[-1].name)
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
    for weight in read_weights(parse(content)):
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


def _ends_in(name):
    inputs = layers.Input((8, 8, 1))
    x = layers.Dense(10)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Activation(name, name="last")(x))


def test_softmax_last():
    network = _twin(lambda: _ends_in("softmax"), BitScheme(8, 8))
    assert harness.output_step(network) == 1 / 256
    assert_file_agrees(network)


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
            lambda: _twin(lambda: _ends_in("softplus"), BitScheme(8, 8)),
            "float input or output at layer 'last'",
        ),
    ],
)
def test_refused(network, message):
    with pytest.raises(errors.ExportError, match=message):
        tflite.convert(network())


def test_unknown_storage():
    network = inference_model(harness.mobile())
    with pytest.raises(errors.ExportError, match="'int1' is unknown: choose"):
        tflite.convert(network, storage="int1")


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
