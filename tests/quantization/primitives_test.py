"""Taking a model apart changes its layers, not its function."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.primitives import primitive_model
from tests import harness
from tests.layer_nets import NETS

layers = keras.layers


def _assert_same_function(model, primitive, atol=2e-6):
    images = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:]))
    images = images.astype(np.float32)
    wanted = model(images).numpy()
    assert np.ptp(wanted) > 1e-3
    np.testing.assert_allclose(
        primitive(images), wanted, atol=atol * max(1.0, np.abs(wanted).max())
    )


@pytest.mark.parametrize("net", NETS)
def test_the_function_stays(net):
    model = harness.randomize_norms(NETS[net]())
    names = [layer.name for layer in model.layers]
    weights = [value.copy() for value in model.get_weights()]
    primitive = primitive_model(model)
    assert not any(isinstance(part, keras.Model) for part in primitive.layers)
    # a mask cuts scores at -10 where the float model has -100 less
    atol = 1e-3 if net == "windows" else 2e-6
    _assert_same_function(model, primitive, atol)
    assert model.input.node.layer.name == primitive.input.node.layer.name
    for variable in primitive.variables:
        variable.assign(tf.zeros_like(variable))
    assert [layer.name for layer in model.layers] == names
    assert all(len(layer._inbound_nodes) < 2 for layer in model.layers)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def _kinds(model):
    return {
        layer.name: type(layer).__name__
        for layer in primitive_model(model).layers
        if not isinstance(layer, layers.InputLayer)
    }


def _through(*parts, shape=(8, 8, 2)):
    x = inputs = layers.Input(shape, name="image")
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def _squared(x):
    return x * x


def test_separable_convolution():
    layer = layers.SeparableConv2D(
        4, 3, 2, depth_multiplier=3, activation="swish", name="s"
    )
    model = _through(layer)
    assert _kinds(model) == {
        "s_depthwise": "DepthwiseConv2D",
        "s_pointwise": "Conv2D",
        "s_pointwise_swish_sigmoid": "Activation",
        "s_pointwise_swish": "Multiply",
    }
    _assert_same_function(model, primitive_model(model))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("relu", {}),
        ("linear", {}),
        (tf.nn.relu6, {"a_relu6": "ReLU"}),
        ("gelu", {"a_gelu": "Activation"}),
        ("softmax", {"a_softmax": "Activation"}),
        (_squared, {"a_activation": "Activation"}),
    ],
)
def test_activations_inside_of_layers(function, wanted):
    model = _through(layers.Dense(3, activation=function, name="a"))
    assert _kinds(model) == {"a": "Dense"} | wanted
    _assert_same_function(model, primitive_model(model))


@pytest.mark.parametrize(
    ("equation", "shape", "bias_axes", "wanted"),
    [
        ("abc,cd->abd", (8, 5), "d", {"e": "Dense"}),
        ("...x,xy->...y", (8, 5), None, {"e": "Dense"}),
        (
            "abc,cde->abde",
            (8, 5, 3),
            "de",
            {"e": "Dense", "e_axes": "Reshape"},
        ),
        (
            "abcd,cde->abe",
            (8, 5),
            "e",
            {"e_flat": "Reshape", "e": "Dense"},
        ),
        (
            "abc,bd->adc",
            (7, 3),
            None,
            {"e": "EinsumDense"},
        ),  # not the last axis
        ("abc,cde->abde", (8, 5, 3), "d", {"e": "EinsumDense"}),  # shared bias
    ],
)
def test_einsum_dense(equation, shape, bias_axes, wanted):
    inputs = {"abcd,cde->abe": (8, 2, 3)}.get(equation, (8, 3))
    layer = layers.EinsumDense(
        equation,
        shape,
        bias_axes=bias_axes,
        bias_initializer="normal",
        name="e",
    )
    model = _through(layer, shape=inputs)
    assert _kinds(model) == wanted
    _assert_same_function(model, primitive_model(model))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: x + 3.0, "Rescaling"),
        (lambda x: 3 + x, "Rescaling"),
        (lambda x: x - 0.5, "Rescaling"),
        (lambda x: 2.0 * x, "Rescaling"),
        (lambda x: x / 4.0, "Rescaling"),
        (lambda x: tf.multiply(x, np.float32(0.3)), "Rescaling"),
        (lambda x: x + x, "Add"),
        (lambda x: x * x, "Multiply"),
        (tf.nn.relu, "ReLU"),
        (tf.nn.relu6, "ReLU"),
        (lambda x: 1.0 - x, "TFOpLambda"),
        (lambda x: 1.0 / (x + x), "TFOpLambda"),
        (lambda x: x * tf.constant([1.0, 2.0]), "TFOpLambda"),
        (tf.abs, "TFOpLambda"),
    ],
)
def test_arithmetic_on_tensors(function, wanted):
    model = _through(layers.Conv2D(2, 3), function)
    assert list(_kinds(model).values())[-1] == wanted
    _assert_same_function(model, primitive_model(model))


def test_names_inside_of_models():
    def inner(name):
        return _through(
            layers.Conv2D(2, 3, padding="same", name="conv"),
            layers.ReLU(name=f"{name}_relu"),
        )

    first, second = inner("a"), inner("b")
    first._name, second._name = "first", "second"
    model = _through(first, second, layers.Conv2D(2, 1, name="last"))
    assert list(_kinds(model)) == [
        *("first_conv", "a_relu"),
        *("second_conv", "b_relu"),
        "last",
    ]
    _assert_same_function(model, primitive_model(model))


def test_frozen_layers_stay_frozen():
    frozen = layers.SeparableConv2D(4, 3, name="s")
    model = _through(frozen, layers.Conv2D(2, 1, name="free"))
    frozen.trainable = False
    primitive = primitive_model(model)
    trainable = {layer.name: layer.trainable for layer in primitive.layers}
    assert trainable["free"] and not trainable["s_depthwise"]
    assert not trainable["s_pointwise"]
    assert len(primitive.trainable_weights) == 2
