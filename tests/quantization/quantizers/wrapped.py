"""Quantizers inside of the layers whose weights or outputs they quantize."""

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf.compat import keras
from qgen_tf.quantization import quantizers
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig

layers = keras.layers
Wrapper = tfmot.quantization.keras.QuantizeWrapperV2


def weight(quantizer, values):
    """Returns a variable with the values, and the quantizer's variables."""
    values = np.asarray(values, np.float32)
    if values.ndim == 2:
        layer = layers.Dense(values.shape[-1], use_bias=False)
        name, inputs = "kernel", (None, values.shape[0])
    elif len(quantizer.axes) == 2:
        layer = layers.DepthwiseConv2D(
            values.shape[:2], depth_multiplier=values.shape[3], use_bias=False
        )
        name, inputs = "depthwise_kernel", (None, 8, 8, values.shape[2])
    else:
        layer = layers.Conv2D(
            values.shape[-1], values.shape[:2], use_bias=False
        )
        name, inputs = "kernel", (None, 8, 8, values.shape[2])
    layer.build(inputs)
    layer.set_weights([values])
    wrapper = Wrapper(layer, LayerQuantizeConfig({name: quantizer}))
    wrapper.build(inputs)
    ((variable, _, variables),) = wrapper._weight_vars
    return variable, variables


def activation(quantizer, shape=(4,)):
    """Returns the variables of a quantizer before it is calibrated."""
    wrapper = Wrapper(
        layers.Activation("linear", name="identity"),
        LayerQuantizeConfig(output_quantizer=quantizer),
    )
    with quantizers.allow_uncalibrated():
        wrapper(tf.zeros([1, *shape]))
    return wrapper._output_quantizer_vars


def calibrated(quantizer, values):
    """Returns the variables of a quantizer that has seen the values."""
    variables = activation(quantizer, values.shape[1:])
    quantizer.observer = quantizers.Observer()
    try:
        quantizer(tf.constant(values, tf.float32), False, variables)
    finally:
        quantizer.observer = None
    return variables
