"""Converts a deployed network to TensorFlow Lite, grid for grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow.lite.python import convert_phase

from export import model_file
from export.constants import write_constants
from export.deployed import require_deployed
from export.fake_quant import FakeQuantActivation, FakeQuantConstant
from export.flatbuffer import matches, require_integers
from export.float_layers import FencedLayer, remove_fences
from export.linear import PlaceholderLinear
from export.norms import write_norms
from export.operands import center_operands, centered_operands
from export.weights import STORAGES, set_storage, write_weights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.grids import (
    ActivationGrid,
    WeightGrid,
    grid_of,
)
from qgen_tf.quantization.inference import InferenceModel
from qgen_tf.quantization.norm_grid import NormGrid
from qgen_tf.quantization.quantize_registry import Role, activation_name, role

Layer: TypeAlias = keras.layers.Layer


def convert(
    network: InferenceModel,
    *,
    storage: str = "int8",
    allow_float: Sequence[str] = (),
) -> bytes:
    """Returns the TensorFlow Lite file of a deployed network.

    A quantized network becomes full-integer: int8 input, output and
    activations, int8 weights, int32 biases. Weights of fewer bits keep their
    own step size, so that a level of the trained weight is the same integer in
    the file. A float network becomes a float32 file.

    Args:
      network: from `qgen_tf.inference_model`.
      storage: of weights. "int4" packs two into a byte where all levels of a
        layer are in -7..7 and the runtime reads that: not those of a
        transposed convolution. "int2" also packs four into a byte where all
        are in -1..1; the runtime reads that in dense layers only, other files
        are expanded as they are loaded (`weights.expand`).
      allow_float: patterns of the names of layers that may compute in float.
        LayerNormalizations that match do: where XNNPACK runs the file, that is
        several times as fast as their integers.

    Returns:
      The flatbuffer. Its batch size is dynamic.

    Raises:
      ExportError: there is no deployed network, the storage is unknown, the
        network has several inputs or
        outputs, or float ones beside quantized weights, the converter refuses
        it, or lets a layer compute in float that is not allowed to.
    """
    require_deployed(network)
    if storage not in list(STORAGES):
        raise errors.ExportError(
            f"storage {storage!r} is unknown: choose one of {list(STORAGES)}."
        )
    _require_ends(network)
    integers = _integer_layers(network)
    norms = {
        name: grid
        for name, grid in network.norm_grids.items()
        if not matches(name, allow_float)
    }
    quantized = bool(network.weight_grids)
    content = _convert(_exported(network, integers, norms), quantized=quantized)
    if not quantized:
        return content
    model = model_file.parse(content)
    remove_fences(model)
    names = [layer.name for layer in network.model.layers]
    center_operands(model, centered_operands(network), names)
    write_constants(model, network.constant_grids, names)
    write_norms(model, norms, first=1 + len(integers))
    write_weights(model, integers)
    set_storage(model, storage)
    require_integers(network, model, allow_float)
    return model_file.pack(model)


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
    (first,), (last,) = model.inputs, model.outputs
    floats = [
        layer.name
        for layer in graph.consumers(model)[first.node.layer.name]
        if not isinstance(layer, ActivationGrid)
    ]
    if grid_of(last) is None:
        floats.append(last.node.layer.name)
    if floats:
        raise errors.ExportError(
            f"model {model.name!r} has a float input or output at layer "
            f"{floats[0]!r}: an integer file needs activations of 8 bits or "
            "fewer and a last layer that can be quantized."
        )


def _integer_layers(network: InferenceModel) -> dict[str, WeightGrid]:
    """Returns the grids of the layers that read and write integers."""
    readers = graph.consumers(network.model)

    def is_on_a_grid(name: str) -> bool:
        return all(
            isinstance(reader, ActivationGrid)
            or (role(reader) is Role.RELU and is_on_a_grid(reader.name))
            for reader in readers[name]
        )

    return {
        name: grid
        for name, grid in (network.weight_grids | network.affine_grids).items()
        if grid.bias_levels is not None and is_on_a_grid(name)
    }


def _exported(
    network: InferenceModel,
    integers: dict[str, WeightGrid],
    norms: dict[str, NormGrid],
) -> keras.Model:
    """Returns the network in the terms of the converter."""
    shapes = {name: grid.levels.shape for name, grid in integers.items()}
    shapes |= {name: (grid.channels,) for name, grid in norms.items()}
    numbers = {name: index for index, name in enumerate(shapes, start=1)}
    producers = graph.producers(network.model)

    def call(layer: Layer, apply: Callable[..., Any]) -> Any:
        if isinstance(layer, keras.layers.InputLayer):
            return apply(tf.identity)
        if isinstance(layer, ActivationGrid):
            (source,) = producers[layer.name]
            return apply(
                FakeQuantActivation(layer, after_relu=_ends_in_relu(source))
            )
        if layer.name in numbers:
            shape, number = shapes[layer.name], numbers[layer.name]
            return apply(PlaceholderLinear(layer, shape, number))
        if layer.name in network.constant_grids:
            grid = network.constant_grids[layer.name]
            return apply(FakeQuantConstant(grid, name=layer.name))
        if isinstance(layer, keras.layers.Reshape):
            return apply(functools.partial(_reshape, layer))
        is_float = network.weight_grids and layer.weights
        return apply(FencedLayer(layer) if is_float else layer)

    return graph.rebuild(network.model, call, name=network.model.name)


def _reshape(layer: Layer, inputs: Any) -> Any:
    """Reshapes all but the batch, without a look at its size.

    Keras computes the shape, and what comes behind a shape that is computed
    has no place in the runtime's plan: XNNPACK does not take it.
    """
    return tf.reshape(
        inputs, (-1, *layer.output_shape[1:]), name=f"{layer.name}/Reshape"
    )


def _ends_in_relu(layer: Layer) -> bool:
    kind = role(layer)
    return kind is Role.RELU or (
        kind is Role.LINEAR and activation_name(layer) == "relu"
    )


def _convert(model: keras.Model, *, quantized: bool) -> bytes:
    (images,) = model.inputs
    function = tf.function(
        lambda images: model(images, training=False), autograph=False
    ).get_concrete_function(
        tf.TensorSpec(images.shape, images.dtype, images.node.layer.name)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function], model
    )
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    try:
        return converter.convert()
    except convert_phase.ConverterError as error:
        raise errors.ExportError(
            f"TensorFlow Lite cannot convert {model.name!r}: {error}"
        ) from error
