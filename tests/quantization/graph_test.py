import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph

layers = keras.layers


def _diamond():
    inputs = layers.Input((4,), name="x")
    a = layers.Dense(3, name="a")(inputs)
    b = layers.Dense(3, name="b")(inputs)
    total = layers.Add(name="sum")([b, a])
    return keras.Model(inputs, [layers.ReLU(name="relu")(total), a])


def _names(mapping):
    return {
        name: sorted(layer.name for layer in found)
        for name, found in mapping.items()
    }


def test_who_reads_what():
    model = _diamond()
    assert _names(graph.consumers(model)) == {
        "x": ["a", "b"],
        "a": ["sum"],
        "b": ["sum"],
        "sum": ["relu"],
        "relu": [],
    }
    assert _names(graph.producers(model)) == {
        "x": [],
        "a": ["x"],
        "b": ["x"],
        "sum": ["a", "b"],
        "relu": ["sum"],
    }
    order = [layer.name for layer in graph.topological_layers(model)]
    assert sorted(order) == ["a", "b", "relu", "sum", "x"]
    assert order[0] == "x" and order[-2:] == ["sum", "relu"]


def test_readers_outside_of_the_model_do_not_count():
    model = _diamond()
    keras.Model(model.input, layers.Dense(2)(model.get_layer("b").output))
    assert _names(graph.consumers(model))["b"] == ["sum"]


def test_rebuild_of_the_same_layers_is_the_same_function():
    model = _diamond()
    again = graph.rebuild(
        model, lambda layer, apply: apply(_same(layer)), name="n"
    )
    assert again is not model and again.name == "n"
    images = tf.random.normal([5, 4])
    for old, new in zip(model(images), again(images), strict=True):
        np.testing.assert_array_equal(old, new)


def _same(layer):
    is_input = isinstance(layer, layers.InputLayer)
    return (lambda tensor: tensor) if is_input else layer


def test_rebuild_keeps_arguments_of_calls():
    inputs = layers.Input((4, 3))
    weights = layers.Dense(3)(inputs)
    attention = layers.MultiHeadAttention(2, 3)(inputs, value=weights)
    scaled = tf.clip_by_value(attention * 2.0, -0.5, clip_value_max=0.25)
    model = keras.Model(inputs, scaled)
    again = graph.rebuild(
        model, lambda layer, apply: apply(_same(layer)), name="n"
    )
    images = tf.random.normal([5, 4, 3])
    np.testing.assert_array_equal(model(images), again(images))


def test_sequential_is_functional():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2, name="a")])
    graph.require_functional(model)
    assert list(graph.consumers(model).values())[0][0].name == "a"


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def _nested():
    inputs = layers.Input((4,))
    return keras.Model(inputs, _diamond()(inputs)[0])


def _nested_twice():
    inputs = layers.Input((4,))
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="a")])
    return keras.Model(inputs, inner(inner(inputs)))


def test_models_inside_of_a_model_are_opened():
    inputs = layers.Input((4,))
    relu, a = _diamond()(inputs)
    outputs = layers.Concatenate()([a, keras.Sequential([layers.ReLU()])(relu)])
    model = keras.Model(inputs, outputs)
    again = graph.rebuild(
        model, lambda layer, apply: apply(_same(layer)), name="flat"
    )
    assert not any(isinstance(layer, keras.Model) for layer in again.layers)
    assert len(again.layers) == 7
    images = tf.random.normal([5, 4])
    np.testing.assert_array_equal(model(images), again(images))


def _nested_subclass():
    inputs = layers.Input((4,))
    return keras.Model(inputs, _Subclassed(name="inner")(inputs), name="outer")


def _shared():
    inputs = layers.Input((4,))
    relu = layers.ReLU(name="twice")
    return keras.Model(inputs, relu(layers.Dense(2)(relu(inputs))))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_Subclassed, "is not a Functional model"),
        (lambda: keras.Sequential([layers.Dense(2)]), "not a Functional model"),
        (_nested_subclass, "model 'inner' inside 'outer' is not a Functional"),
        (_nested_twice, "calls the layer 'a' 2 times"),
        (_shared, "calls the layer 'twice' 2 times: give each call"),
        (lambda: 3, "expected a model or layer of tf_keras"),
    ],
)
def test_refused(build, message):
    with pytest.raises(errors.ModelError, match=message):
        graph.require_functional(build())


@pytest.mark.slow
def test_keras_3_is_refused():
    code = """
import qgen_tf, keras
inputs = keras.Input((8, 8, 3))
model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
try:
    qgen_tf.quantize_model(model, qgen_tf.BitScheme())
except qgen_tf.errors.ModelError as error:
    print("refused:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "refused: Functional is a Keras 3 object" in done.stdout
