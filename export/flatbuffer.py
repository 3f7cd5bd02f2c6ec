"""Holds a TensorFlow Lite file against the network that it came from."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.constants import read_constants
from export.deployed import require_deployed
from export.model_file import (
    computes_in_float,
    damage_reported,
    operator_name,
    owners,
    parse,
)
from export.norms import norm_constants
from export.operands import centered_operands
from export.weights import FileWeight, read_weights
from qgen_tf import errors
from qgen_tf.quantization import graph as keras_graph
from qgen_tf.quantization.grids import (
    ActivationGrid,
    WeightGrid,
    grid_of,
)
from qgen_tf.quantization.inference import InferenceModel

# These pass between integers and floats and compute nothing.
_PASSAGES = ("DEQUANTIZE", "QUANTIZE")


def check(
    network: InferenceModel, content: bytes, allow_float: Sequence[str] = ()
) -> None:
    """Proves that a file holds the integers of the network it came from.

    Every weight level and bias must be the same integer, and every scale and
    zero point a grid of the network, scales to one unit in the last place. No
    operator may compute in float but those of layers that are allowed to. A
    network without quantized weights has no integers; its file need only be
    readable.

    Args:
      network: the deployed network.
      content: its TensorFlow Lite file.
      allow_float: patterns of the names of layers that may compute in float,
        such as "*layer_norm*".

    Raises:
      ExportError: names the first thing that differs, or the argument that is
        none of these.
    """
    require_deployed(network)
    model = parse(content)
    with damage_reported():
        weights = read_weights(model)
        if network.weight_grids:
            require_integers(network, model, allow_float)
            _check_weights(network, weights, allow_float)
            _check_constants(network, model, allow_float)
            _check_activations(network, model)
            _check_ends(network, model)


def float_operators(model: schema.ModelT) -> list[str]:
    """Returns the names of operators that read or write floats."""
    return [
        operator_name(model, operator)
        for operator in model.subgraphs[0].operators
        if computes_in_float(model, operator)
    ]


def require_integers(
    network: InferenceModel, model: schema.ModelT, allow_float: Sequence[str]
) -> None:
    """Raises an ExportError if a layer computes in float that must not."""
    found = [
        f"{kind} of layer {layer!r}"
        for layer, kinds in float_layers(network, model).items()
        if not matches(layer, allow_float)
        for kind in kinds
    ]
    if found:
        raise errors.ExportError(
            f"the file computes in float: {', '.join(sorted(found))}. Quantize "
            "these layers and those around them, remove them, or allow them."
        )


def float_layers(
    network: InferenceModel, model: schema.ModelT
) -> dict[str, list[str]]:
    """Returns which layers compute in float, and by which operators.

    Args:
      network: a deployed network.
      model: its file.

    Returns:
      Name of a layer to the names of its float operators, each one once,
      without those that only pass between integers and floats. What cannot be
      told to be of a layer has the name of the operator's output.
    """
    names = [layer.name for layer in network.model.layers]
    producers = keras_graph.producers(network.model)
    # a grid behind a float layer cuts off floats: that is part of the layer
    sources = {
        layer.name: producers[layer.name][0].name
        for layer in network.model.layers
        if isinstance(layer, ActivationGrid)
    }
    found: dict[str, set[str]] = {}
    for operator in model.subgraphs[0].operators:
        kind = operator_name(model, operator)
        if kind in _PASSAGES or not computes_in_float(model, operator):
            continue
        for index in operator.outputs:
            path = model.subgraphs[0].tensors[index].name.decode()
            for owner in owners(path, names) or [path]:
                found.setdefault(sources.get(owner, owner), set()).add(kind)
    return {layer: sorted(kinds) for layer, kinds in sorted(found.items())}


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns is that of a layer's name.

    Raises:
      ExportError: the patterns are a single string, each of whose letters
        would be one.
    """
    if isinstance(patterns, str):
        raise errors.ExportError(
            f"allow_float is {patterns!r}: pass a list, [{patterns!r}]."
        )
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_weights(
    network: InferenceModel,
    weights: list[FileWeight],
    allow_float: Sequence[str],
) -> None:
    grids = {**network.weight_grids, **network.affine_grids}
    for name, grid in grids.items():
        if matches(name, allow_float):
            continue
        found = [weight for weight in weights if weight.name == name]
        if len(found) != 1:
            raise errors.ExportError(
                f"the file holds {len(found)} weights of layer {name!r}, not 1."
            )
        _check_weight(name, grid, found[0])


def _check_weight(name: str, grid: WeightGrid, found: FileWeight) -> None:
    if found.values.size != grid.levels.size:
        raise errors.ExportError(
            f"layer {name!r}: the file holds {found.values.size} weight "
            f"levels, the network {grid.levels.size}."
        )
    levels = found.values.reshape(grid.levels.shape)
    wrong = int((levels != grid.levels).sum())
    if wrong:
        raise errors.ExportError(
            f"layer {name!r}: {wrong} of {levels.size} weight levels differ "
            "between the file and the network."
        )
    if found.zero_points.any():
        raise errors.ExportError(f"layer {name!r}: a zero point is not 0.")
    channels = grid.step_size.reshape(-1)
    _check_scales(f"layer {name!r}: weight", found.scales, channels)
    wrong = int((found.bias != grid.bias_levels).sum())
    if wrong:
        raise errors.ExportError(
            f"layer {name!r}: {wrong} of {found.bias.size} bias integers "
            "differ between the file and the network."
        )


def _check_constants(
    network: InferenceModel, model: schema.ModelT, allow_float: Sequence[str]
) -> None:
    """Raises if what is added, or scales a norm, is not as in the network."""
    wanted = {
        name: (grid.levels, grid.step_size.reshape(-1))
        for name, grid in network.constant_grids.items()
    }
    for name, grid in network.norm_grids.items():
        if not matches(name, allow_float):
            wanted |= norm_constants(name, grid)
    found = read_constants(model, wanted)
    for name, (levels, step_sizes) in wanted.items():
        there, scales = found[name]
        if not np.array_equal(there, levels.reshape(-1)):
            raise errors.ExportError(
                f"constant {name!r} has other levels in the file than in the "
                "network."
            )
        _check_scales(f"constant {name!r}:", scales, step_sizes)


def _check_activations(network: InferenceModel, model: schema.ModelT) -> None:
    """Raises if a tensor between operators is on no grid of the network."""
    grids = {
        (np.float32(layer.step_size), layer.int8_zero_point)
        for layer in network.model.layers
        if isinstance(layer, ActivationGrid)
    }
    operands = centered_operands(network).values()
    grids |= {(np.float32(grid.step_size), 0) for grid in operands}
    graph = model.subgraphs[0]
    for index in {i for operator in graph.operators for i in operator.outputs}:
        tensor = graph.tensors[index]
        if tensor.type != schema.TensorType.INT8:
            continue
        (scale,) = tensor.quantization.scale
        (zero_point,) = tensor.quantization.zeroPoint
        if not any(
            abs(scale - step_size) <= np.spacing(step_size)
            and zero_point == level
            for step_size, level in grids
        ):
            raise errors.ExportError(
                f"tensor {tensor.name.decode()!r}: the converter made up its "
                f"scale {scale} and zero point {zero_point}; no layer of the "
                "network has that grid."
            )


def _check_ends(network: InferenceModel, model: schema.ModelT) -> None:
    graph = model.subgraphs[0]
    readers = keras_graph.consumers(network.model)
    first: Any = readers[network.model.inputs[0].node.layer.name][0]
    last: Any = grid_of(network.model.outputs[0])
    for what, (index,), grid in (
        ("input", graph.inputs, first),
        ("output", graph.outputs, last),
    ):
        found = graph.tensors[index].quantization
        wanted = np.array([grid.step_size], np.float32)
        _check_scales(what, np.array(found.scale), wanted)
        if list(found.zeroPoint) != [grid.int8_zero_point]:
            raise errors.ExportError(
                f"{what} zero point {found.zeroPoint} in the file is not the "
                f"{grid.int8_zero_point} of the network."
            )


def _check_scales(what: str, found: np.ndarray, wanted: np.ndarray) -> None:
    off = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    if not (off <= np.spacing(np.abs(wanted))).all():
        worst = int(np.argmax(off / wanted))
        raise errors.ExportError(
            f"{what} scale {np.broadcast_to(found, off.shape)[worst]} in the "
            f"file is not the step size "
            f"{np.broadcast_to(wanted, off.shape)[worst]} of the network."
        )
