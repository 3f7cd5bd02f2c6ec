"""The deployed network with the weights that a file holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.constants import read_constants
from export.deployed import require_deployed
from export.model_file import damage_reported, parse
from export.norms import norm_constants
from export.weights import FileWeight, read_weights
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization.affine import ChannelAffine
from qgen_tf.quantization.grids import WeightGrid
from qgen_tf.quantization.inference import InferenceModel, input_step_size
from qgen_tf.quantization.norm_grid import NormGrid
from qgen_tf.quantization.quantize_registry import WEIGHTS


def file_network(network: InferenceModel, content: bytes) -> InferenceModel:
    """Puts the weights of a file into a deployed network.

    Levels, step sizes and biases are those of the file, constants that are
    added and LayerNormalizations included; the structure and the grids of
    activations are those of the network, and so are weights that layers left
    in float hold besides those of convolutions and dense operators.
    The weights before rounding, which no file has, stay those of the network.

    Args:
      network: of the run that the file is of; the weights of its `model` are
        changed.
      content: the TensorFlow Lite file.

    Returns:
      The network with the grids of the file, around the same `model`.

    Raises:
      ExportError: the file is damaged, or its layers, shapes, number of
        weights or bits are not those of the network.
    """
    require_deployed(network)
    model = parse(content)
    with damage_reported():
        weights = read_weights(model)
    layers = {
        layer.name: layer
        for layer in network.model.layers
        if type(layer) in WEIGHTS or isinstance(layer, ChannelAffine)
    }
    grids = network.weight_grids | network.affine_grids
    found = {}
    for name, weight in _by_layer(weights, layers).items():
        layer = layers[name]
        _require_shape(layer, weight)
        values, bias = weight.values, weight.bias
        if name in grids:
            grid = _file_grid(layer, grids[name], weight)
            values, bias = grid.values, grid.bias(_input_step_size(layer))
            found[name] = grid
        else:
            _require_floats(name, weight)
        kernel = _kernel(layer)
        kernel.assign(values.reshape(kernel.shape))
        layer.bias.assign(bias)
    return dataclasses.replace(
        network,
        weight_grids={name: found[name] for name in network.weight_grids},
        affine_grids={name: found[name] for name in network.affine_grids},
        constant_grids=_constant_grids(network, model),
        norm_grids=_norm_grids(network, model),
    )


def _constant_grids(
    network: InferenceModel, model: schema.ModelT
) -> dict[str, WeightGrid]:
    """Gives the network what the file adds, and returns the grids of it."""
    found = read_constants(model, network.constant_grids)
    grids = {}
    for name, grid in network.constant_grids.items():
        levels, step_sizes = found[name]
        grids[name] = dataclasses.replace(
            grid,
            levels=_levels(name, levels, grid.levels),
            step_size=np.full_like(grid.step_size, step_sizes[0]),
        )
        network.model.get_layer(name).set_weights([grids[name].values])
    return grids


def _norm_grids(
    network: InferenceModel, model: schema.ModelT
) -> dict[str, NormGrid]:
    """Gives the network how the file normalizes, and returns the integers."""
    grids = {}
    for name, norm in network.norm_grids.items():
        found = read_constants(model, norm_constants(name, norm))
        factors, steps = found[f"{name}/gamma"]
        beta, _ = found[f"{name}/beta"]
        grids[name] = dataclasses.replace(
            norm,
            factor_levels=_levels(name, factors, norm.factor_levels),
            factor_step_sizes=np.broadcast_to(steps, factors.shape),
            beta_levels=_levels(name, beta, norm.beta_levels),
        )
        network.model.get_layer(name).set_weights(
            [grids[name].gamma, grids[name].beta]
        )
    return grids


def _levels(name: str, found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the levels of a constant in the shape that the run has."""
    if (found.dtype, found.size) != (wanted.dtype, wanted.size):
        raise _misfit(
            f"constant {name!r} has {found.size} levels of {found.dtype} "
            f"there, in the run {wanted.size} of {wanted.dtype}"
        )
    return found.reshape(wanted.shape)


def _by_layer(
    weights: list[FileWeight], layers: dict[str, Any]
) -> dict[str, FileWeight]:
    """Maps the name of each layer to its weight in the file."""
    owned: dict[str, list[FileWeight]] = {name: [] for name in layers}
    for weight in weights:
        owner = _owner(weight.name, layers)
        if owner is None:
            raise _misfit(f"it holds {weight.name!r}, which the run has not")
        owned[owner].append(weight)
    for name, found in owned.items():
        if len(found) != 1:
            raise _misfit(
                f"it holds {len(found)} weights of layer {name!r}, not 1"
            )
    return {name: found[0] for name, found in owned.items()}


def _owner(weight: str, layers: dict[str, Any]) -> str | None:
    """Returns the layer that a weight of the file belongs to, if any.

    Args:
      weight: the name of the layer if it is quantized, else the path of an
        operation, as `model/layer/operation`.
      layers: by their names, which may hold slashes themselves.
    """
    if weight in layers:
        return weight
    _, _, inner = weight.partition("/")
    matches = [name for name in layers if inner.startswith(f"{name}/")]
    return max(matches, key=len, default=None)


def _require_shape(layer: keras.layers.Layer, weight: FileWeight) -> None:
    """Raises unless the shapes agree, but for axes of length one."""
    wanted: tuple[int, ...] = tuple(_kernel(layer).shape)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        wanted = (*wanted[:2], wanted[2] * wanted[3])
    shapes = [
        tuple(length for length in shape if length != 1)
        for shape in (weight.values.shape, wanted)
    ]
    biases = [weight.bias.shape, tuple(layer.bias.shape)]
    if shapes[0] != shapes[1] or biases[0] != biases[1]:
        raise _misfit(
            f"layer {layer.name!r} has a weight of {weight.values.shape} and "
            f"a bias of {biases[0]} there, in the run {wanted} and {biases[1]}"
        )


def _require_floats(name: str, weight: FileWeight) -> None:
    if weight.scales.size:
        raise _misfit(
            f"it holds integers of layer {name!r}, which is float in the run"
        )


def _file_grid(
    layer: keras.layers.Layer, grid: WeightGrid, weight: FileWeight
) -> WeightGrid:
    """Returns the grid of a weight with the integers of the file."""
    name = layer.name
    if not weight.scales.size or weight.bias.dtype != np.int32:
        raise _misfit(
            f"it computes layer {name!r} in float, which the run quantizes"
        )
    highest = max(1, 2 ** (grid.num_bits - 1) - 1)
    largest = int(np.abs(weight.values.astype(np.int32)).max())
    if largest > highest or weight.zero_points.any():
        raise _misfit(
            f"layer {name!r} has levels to {largest} around zero points to "
            f"{np.abs(weight.zero_points).max()} there, in the run levels to "
            f"{highest} around 0"
        )
    if weight.scales.size not in (1, weight.bias.size):
        raise _misfit(
            f"layer {name!r} has {weight.scales.size} scales there, not one "
            f"or one for each of {weight.bias.size} channels"
        )
    return dataclasses.replace(
        grid,
        levels=weight.values.reshape(grid.levels.shape),
        step_size=_step_size(layer, grid, weight),
        bias_levels=weight.bias,
    )


def _step_size(
    layer: keras.layers.Layer, grid: WeightGrid, weight: FileWeight
) -> np.ndarray:
    """Returns the scales of the file in a shape that the levels broadcast to.

    An operator that wants a scale for each channel repeats a single one.
    """
    if grid.step_size.size == 1 and np.ptp(weight.scales) == 0.0:
        return np.full_like(grid.step_size, weight.scales[0])
    shape = [1] * grid.levels.ndim
    axes: tuple[int, ...] = (-1,)
    if type(layer) in WEIGHTS:
        axes = WEIGHTS[type(layer)].channel_axes
    for axis in axes:
        shape[axis] = grid.levels.shape[axis]
    return np.broadcast_to(weight.scales, weight.bias.shape).reshape(shape)


def _input_step_size(layer: Any) -> float:
    """Returns that of the grid which the bias of a quantized layer needs."""
    step_size = input_step_size(layer.input)
    if step_size is None:
        raise _misfit(f"layer {layer.name!r} reads floats in the run")
    return step_size


def _kernel(layer: Any) -> Any:
    if isinstance(layer, ChannelAffine):
        return layer.kernel
    return getattr(layer, WEIGHTS[type(layer)].attribute)


def _misfit(what: str) -> errors.ExportError:
    return errors.ExportError(
        f"the file does not fit the run: {what}; pass a file that qgen-export "
        "made of this run."
    )
