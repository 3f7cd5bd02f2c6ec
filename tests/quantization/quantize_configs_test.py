import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf.compat import keras
from qgen_tf.quantization import quantizers
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig


def _config(weight=True, output=True):
    return LayerQuantizeConfig(
        {"kernel": quantizers.LSQWeightQuantizer(3, axes=(-1,))}
        if weight
        else None,
        quantizers.LSQActivationQuantizer(5, signed=False) if output else None,
    )


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("output", [True, False])
def test_round_trip(weight, output):
    config = _config(weight, output)
    arguments = inspect.signature(LayerQuantizeConfig.__init__).parameters
    assert set(config.get_config()) == set(arguments) - {"self"}
    again = LayerQuantizeConfig.from_config(config.get_config())
    assert again.get_config() == config.get_config()
    assert list(again.weight_quantizers) == ["kernel"] * weight
    assert len(again.get_output_quantizers(None)) == output


def test_a_wrapper_survives_its_own_config():
    wrapper = tfmot.quantization.keras.QuantizeWrapperV2(
        keras.layers.Dense(3), _config()
    )
    again = type(wrapper).from_config(wrapper.get_config())
    assert again.quantize_config.get_config() == _config().get_config()


def test_the_layer_computes_with_the_quantized_weight():
    layer = keras.layers.Dense(3, activation="relu")
    wrapper = tfmot.quantization.keras.QuantizeWrapperV2(
        layer, _config(output=False)
    )
    images = tf.random.normal([4, 6])
    found = wrapper(images).numpy()
    ((weight, quantizer, steps),) = wrapper._weight_vars
    kernel = quantizer(weight, False, steps)
    assert (
        len(np.unique(np.rint(kernel / quantizer.stored_step_size(steps)))) <= 7
    )
    np.testing.assert_array_equal(found, tf.nn.relu(images @ kernel))
