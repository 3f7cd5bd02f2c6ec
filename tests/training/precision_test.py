"""Precision: a policy ends with its block, losses are of float32 logits."""

import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.training import precision

layers = keras.layers


def _dense():
    inputs = layers.Input((3,))
    return keras.Model(inputs, layers.Dense(2, name="logits")(inputs))


def test_a_policy_is_over_when_its_block_is():
    with pytest.raises(KeyboardInterrupt):
        with precision.policy("mixed_bfloat16"):
            model = _dense()
            raise KeyboardInterrupt
    assert keras.mixed_precision.global_policy().name == "float32"
    layer = model.get_layer("logits")
    assert layer.compute_dtype == "bfloat16" and layer.dtype == "float32"


@pytest.mark.parametrize("name", precision.POLICIES)
def test_outputs_are_float32(name):
    with precision.policy(name):
        model = _dense()
        view = precision.with_float32_outputs(model)
    assert view.output.dtype == tf.float32
    assert (view is model) == (name == "float32")
    inputs = tf.constant([[0.3, -1.0, 2.0]])
    assert view(inputs).dtype == tf.float32
    tf.debugging.assert_equal(view(inputs), tf.cast(model(inputs), tf.float32))
    assert view.variables[0] is model.variables[0]
