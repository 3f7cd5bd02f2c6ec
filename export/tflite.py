"""Converts a deployed network to TensorFlow Lite, grid for grid."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.lite.python import convert_phase

from export.fake_quant import FakeQuantActivation, FakeQuantWeights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.grids import ActivationGrid, WeightGrid
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
      ExportError: the network has several inputs or outputs, or float ones
        beside quantized weights, or the converter refuses it.
    """
    _require_ends(network)
    model = graph.rebuild(
        network.model,
        lambda layer, apply: apply(_exported(layer, network.weight_grids)),
        name=network.model.name,
    )
    (images,) = model.inputs
    function = tf.function(
        lambda images: model(images, training=False), autograph=False
    ).get_concrete_function(
        tf.TensorSpec(images.shape, images.dtype, images.node.layer.name)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function], model
    )
    if network.weight_grids:
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


def _require_ends(network: InferenceModel) -> None:
    """Raises unless there is one input and output, on grids if weights are."""
    model = network.model
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise errors.ExportError(
            f"model {model.name!r} has {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs: a file is made of one each."
        )
    if not network.weight_grids:
        return
    input_layer, output_layer = (
        tensor.node.layer for tensor in (*model.inputs, *model.outputs)
    )
    for layer in [*graph.consumers(model)[input_layer.name], output_layer]:
        if not isinstance(layer, ActivationGrid):
            raise errors.ExportError(
                f"model {model.name!r} has a float input or output at layer "
                f"{layer.name!r}: an integer file needs activations of 8 bits "
                "or fewer and a last layer that can be quantized."
            )


def _exported(
    layer: keras.layers.Layer, weight_grids: dict[str, WeightGrid]
) -> keras.layers.Layer:
    """Returns what stands for a deployed layer in the exported graph."""
    if isinstance(layer, keras.layers.InputLayer):
        return tf.identity
    if isinstance(layer, ActivationGrid):
        return FakeQuantActivation(layer)
    if layer.name in weight_grids:
        return FakeQuantWeights(layer, weight_grids[layer.name])
    return layer
