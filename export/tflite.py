"""Converts a deployed network to TensorFlow Lite, grid for grid."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.lite.python import convert_phase

from export.fake_quant import FakeQuantActivation, FakeQuantWeights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.grids import ActivationQuantizer, WeightGrid
from qgen_tf.quantization.inference import InferenceModel


def convert(network: InferenceModel) -> bytes:
    """Returns the TensorFlow Lite file of a deployed network.

    A quantized network becomes full-integer: int8 input, output and
    activations, int8 weights, int32 biases. Weights of fewer bits are stored
    in int8 at their own step size, so that a level of the trained weight is
    the same integer in the file. A float network becomes a float32 file.

    Args:
      network: from `qgen_tf.inference_model`.

    Returns:
      The flatbuffer. Its batch size is dynamic.

    Raises:
      ExportError: the converter refuses the network.
    """
    model = graph.rebuild(
        network.model,
        lambda layer, apply: apply(_exported(layer, network.weight_grids)),
        name=network.model.name,
    )
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, tensor.node.layer.name)
        for tensor in model.inputs
    ]
    function = tf.function(
        lambda *images: model(list(images), training=False), autograph=False
    ).get_concrete_function(*signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function], model
    )
    if network.weight_grids:
        _require_integer_ends(network)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        # Dense layers have one step size; the converter's own choice would be
        # one a channel.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: E501
    try:
        return converter.convert()
    except convert_phase.ConverterError as error:
        raise errors.ExportError(
            f"TensorFlow Lite cannot convert {network.model.name!r}: {error}"
        ) from error


def _require_integer_ends(model: keras.Model) -> None:
    """Raises unless every input is rounded first, every output last."""
    first = [
        node.layer
        for tensor in model.inputs
        for node in tensor.node.layer._outbound_nodes
    ]
    last = [tensor.node.layer for tensor in model.outputs]
    for layer in first + last:
        if not isinstance(layer, ActivationQuantizer):
            raise errors.ExportError(
                f"model {model.name!r} has float inputs or outputs at layer "
                f"{layer.name!r}: an integer file needs activations of 8 bits "
                "or fewer and a last layer that can be quantized."
            )


def _exported(
    layer: keras.layers.Layer, weight_grids: dict[str, WeightGrid]
) -> keras.layers.Layer:
    """Returns what stands for a deployed layer in the exported graph."""
    if isinstance(layer, keras.layers.InputLayer):
        return tf.identity
    if isinstance(layer, ActivationQuantizer):
        return FakeQuantActivation(layer)
    if layer.name in weight_grids:
        return FakeQuantWeights(layer, weight_grids[layer.name])
    return layer
