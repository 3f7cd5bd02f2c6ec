"""What `quantize_model` wraps, and what it leaves alone."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    QUANTIZERS,
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.quantize import wrappers
from tests import harness

layers = keras.layers


_SIGNS = {True: "s", False: "u", None: "?"}


def _bits(model):
    """Maps names of layers to bits of weights, bits and sign of outputs."""
    found = {}
    for wrapper in wrappers(model):
        config = wrapper.quantize_config
        weights = [q.num_bits for q in config.weight_quantizers.values()]
        output = config.output_quantizer
        found[wrapper.layer.name] = (
            *(weights or [None]),
            output and f"{_SIGNS[output.signed]}{output.num_bits}",
        )
    return found


def test_bits_of_a_residual_network():
    model = quantize_model(harness.residual(), BitScheme(3, 4))
    assert _bits(model) == {
        "image_input": (None, "?8"),  # read by the first layer
        "stem": (8, None),  # first; its grid is behind the ReLU
        "stem_relu": (None, "u4"),
        "branch": (3, None),
        "branch_bn": (None, "s4"),  # before Add
        "shortcut": (3, "s4"),
        "add_relu": (None, "u8"),  # read by the last layer, through Flatten
        "logits": (8, "s8"),
    }


def test_bits_of_a_mobile_network():
    found = _bits(quantize_model(harness.mobile(), BitScheme(2, 5)))
    assert found["depth2"] == found["project"] == (2, None)
    assert found["project_bn"] == (None, "s5")
    assert found["add"] == (None, "s5")
    assert found["depth1"] == (2, None)
    assert found["pool"] == (None, "u8")
    assert found["logits"] == (8, "s8")


@pytest.mark.parametrize(
    ("scheme", "weights", "outputs"),
    [
        (BitScheme(4, 32), {4, 8}, {None}),
        (BitScheme(32, 4), {None}, {"?8", "s8", "u4", "u8", "s4"}),
    ],
)
def test_only_weights_or_only_activations(scheme, weights, outputs):
    model = quantize_model(harness.residual(), scheme)
    calibrate(model, harness.calibration_data())
    found = _bits(model).values()
    assert {weight for weight, _ in found} - {None} == weights - {None}
    assert {output for _, output in found} - {None} == outputs - {None}
    assert np.isfinite(model(harness.test_images())).all()


@pytest.mark.parametrize("per_axis", [True, False])
def test_shapes_of_step_sizes(per_axis):
    model = quantize_model(harness.mobile(), BitScheme(4, 4, per_axis=per_axis))
    shapes = {
        name.split("/")[0]: value.shape
        for name, value in harness.steps_of(model).items()
        if "output_log_step" not in name
    }
    assert shapes["quant_stem"] == ((1, 1, 1, 6) if per_axis else ())
    assert shapes["quant_depth2"] == ((1, 1, 6, 2) if per_axis else ())
    assert shapes["quant_logits"] == ()


def test_the_float_model_is_left_as_it_is():
    model = harness.randomize_norms(harness.residual())
    weights = [value.copy() for value in model.get_weights()]
    before = model(harness.test_images()).numpy()
    names = [layer.name for layer in model.layers]
    twin = quantize_model(model, harness.W4A4)
    calibrate(twin, harness.calibration_data())
    for variable in twin.variables:
        if "log_step" not in variable.name:
            variable.assign(tf.zeros_like(variable))
    assert [layer.name for layer in model.layers] == names
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(before, model(harness.test_images()))


def test_the_twin_starts_from_all_weights_of_the_float_model():
    model = harness.randomize_norms(harness.mobile())
    twin = quantize_model(model, harness.W8A8)
    owners = {layer.name: layer for layer in twin.layers}
    owners.update({wrapper.layer.name: wrapper for wrapper in wrappers(twin)})
    compared = 0
    for layer in model.layers:
        for old in layer.weights:
            name = old.name.split("/")[-1]
            (new,) = (
                weight
                for weight in owners[layer.name].weights
                if weight.name.split("/")[-1] == name
            )
            np.testing.assert_array_equal(old, new)
            compared += 1
    assert compared == len(model.weights) > 20


def test_first_step_sizes_are_of_the_pretrained_weights():
    model = harness.trained(harness.tiny_nin)
    steps = harness.steps_of(quantize_model(model, BitScheme(2, 4)))
    name = "block1_spatial_conv"
    kernel = np.abs(model.get_layer(name).kernel.numpy())
    kernel = kernel.reshape(-1, kernel.shape[-1])
    wanted = np.minimum(2 * kernel.mean(0), kernel.max(0))  # highest level 1
    (found,) = (
        value
        for key, value in steps.items()
        if f"{name}/" in key and "output" not in key
    )
    np.testing.assert_allclose(found.reshape(-1), wanted, rtol=3e-6)


class _Mystery(layers.Layer):
    def call(self, inputs):
        return inputs / 2.0


def _unknown():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = layers.Lambda(lambda tensor: tensor * 2.0, name="lambda")(x)
    x = layers.PReLU(name="prelu")(x)
    x = tf.clip_by_value(x, -4.0, 4.0)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Flatten()(_Mystery(name="mystery")(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def test_unknown_layers_pass_through():
    model = _unknown()
    twin = quantize_model(model, harness.W8A8)
    calibrate(twin, harness.calibration_data())
    kinds = {
        type(getattr(layer, "layer", layer)).__name__ for layer in twin.layers
    }
    assert {type(layer).__name__ for layer in model.layers} <= kinds
    # only the last of them has a grid behind it, read by the last layer
    assert _bits(twin) == {
        "image_input": (None, "?8"),
        "first": (8, "s8"),
        "mystery_output": (None, "?8"),
        "logits": (8, "s8"),
    }
    images = harness.test_images()[:32]
    outputs, floats = twin(images).numpy(), model(images).numpy()
    step = harness.steps_of(twin)["quant_logits/output_log_step:0"]
    assert np.abs(outputs - floats).max() < 8 * step
    assert np.abs(outputs - floats).max() > 0.0


def test_strict():
    with pytest.raises(
        errors.ModelError,
        match=r"not known: 'lambda' \(Lambda\), 'prelu' \(PReLU\), .*Mystery",
    ):
        quantize_model(_unknown(), harness.W8A8, strict=True)
    quantize_model(harness.mobile(), harness.W8A8, strict=True)


def test_overrides():
    scheme = BitScheme(
        4, 4, overrides=(("branch", 2, 3), ("stem", 5, 6), ("logits", 7, 32))
    )
    found = _bits(quantize_model(harness.residual(), scheme))
    assert found["branch"] == (2, None)
    assert found["branch_bn"] == (None, "s3")  # computed as one with branch
    assert found["stem"] == (5, None)  # though it is the first
    assert found["stem_relu"] == (None, "u6")
    assert found["logits"] == (7, None)
    assert found["shortcut"] == (4, "s4")


def test_float_layers_among_quantized_ones():
    scheme = BitScheme(4, 32, overrides=(("branch*", 32, 32),))
    found = _bits(quantize_model(harness.residual(), scheme))
    assert found == {
        "stem": (8, None),
        "shortcut": (4, None),
        "logits": (8, None),
    }


@pytest.mark.parametrize("pattern", ["brunch", "max_pooling2d*", "flatten*"])
def test_an_override_that_matches_nothing(pattern):
    scheme = BitScheme(4, 4, overrides=((pattern, 8, 8),))
    with pytest.raises(
        errors.ConfigError,
        match="matches no layer that can be quantized; names",
    ):
        quantize_model(harness.residual(), scheme)


@pytest.mark.parametrize("input_bits", [8, 7])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_each_quantizer_by_its_name(name, input_bits):
    scheme = BitScheme(4, 4, input_bits, quantizer=name, step_learning_rate=0.5)
    family = QUANTIZERS[name]
    first, *others = wrappers(quantize_model(harness.tiny_nin(), scheme))
    kind = family.inputs if input_bits == 8 else family.activations
    assert first.name == "quant_image_input"
    assert type(first.quantize_config.output_quantizer) is kind
    for wrapper in others:
        config = wrapper.quantize_config
        for quantizer in config.weight_quantizers.values():
            assert type(quantizer) is family.weights
        if config.output_quantizer is not None:
            assert type(config.output_quantizer) is family.activations
        learned = [*config.weight_quantizers.values(), config.output_quantizer]
        for quantizer in learned:
            config = quantizer.get_config() if quantizer else {}
            if "learning_rate_multiplier" in config:
                assert quantizer.learning_rate_multiplier == 0.5


def test_the_ends_of_a_model_with_more_than_layers_with_weights():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Rescaling(0.5, name="scale")(inputs)
    x = layers.Conv2D(4, 3, name="first")(x)
    x = layers.Conv2D(4, 3, name="middle")(x)
    x = layers.Dense(3, activation="softmax", name="last")(layers.Flatten()(x))
    model = quantize_model(keras.Model(inputs, x), BitScheme(2, 3))
    assert _bits(model) == {
        "image_input": (None, "?8"),
        "scale": (None, "?8"),
        "first": (8, "s3"),
        "middle": (2, "s8"),
        "last": (8, "s8"),
        "last_softmax": (None, "u8"),
    }


def test_what_a_layer_has_adapted_to_is_kept():
    images = harness.train_images()
    norm = layers.Normalization(name="norm")
    norm.adapt(images)
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3)(norm(inputs)))
    model = keras.Model(inputs, layers.Dense(10)(x))
    twin = quantize_model(model, harness.W8A8)
    calibrate(twin, harness.calibration_data())
    wanted = model(images[:64]).numpy()
    off = np.abs(twin(images[:64]).numpy() - wanted)
    assert off.max() < 0.05 * np.ptp(wanted)
    folded = inference_model(model).model(images[:64]).numpy()
    np.testing.assert_allclose(folded, wanted, atol=1e-5)


def test_sequential():
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", name="a"),
            layers.Flatten(),
            layers.Dense(3, name="b"),
        ]
    )
    found = _bits(quantize_model(model, BitScheme(2, 4)))
    found = {name: bits for name, bits in found.items() if name in "ab"}
    assert found == {"a": (8, "u8"), "b": (8, "s8")}


def _no_weights():
    inputs = layers.Input((4,))
    return keras.Model(inputs, layers.ReLU()(inputs))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: quantize_model(harness.tiny_nin(), harness.W8A8),
            "is quantized already: pass the float model",
        ),
        (_no_weights, "has no layer to quantize: it needs at least one of"),
        (keras.Sequential, "is not a Functional model"),
    ],
)
def test_refused(build, message):
    with pytest.raises(errors.ModelError, match=message):
        quantize_model(build(), harness.W8A8)
