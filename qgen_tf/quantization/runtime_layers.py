"""Layers that the integer runtime computes in a way of its own.

Each function calls what stands for a Keras layer in a deployed network. Where
the runtime's operators only change the step size, or clip, they round twice or
know the ratio of step sizes to 8 bits only; a factor a channel is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.affine import channel_affine
from qgen_tf.quantization.aligned_norm import AlignedLayerNorm
from qgen_tf.quantization.grids import ActivationGrid, AverageGrid, grid_of
from qgen_tf.quantization.key_mask import KeyMask
from qgen_tf.quantization.layer_norm import layer_norm
from qgen_tf.quantization.quantize_registry import Role, role

layers = keras.layers
Layer: TypeAlias = keras.layers.Layer
Call: TypeAlias = Callable[[Any, "ActivationGrid | None", Any], Any]


def copied(layer: Layer, *args: Any, **kwargs: Any) -> Any:
    """Calls a copy of a layer, weights included, that computes in float32."""
    config = {**layer.get_config(), "dtype": "float32"}
    copy = type(layer).from_config(config)
    outputs = copy(*args, **kwargs)
    graph.copy_weights(layer, copy)
    return outputs


def _scaled(tensor: Any, factor: float, grid: ActivationGrid, name: str) -> Any:
    """Multiplies a tensor that is on a grid, on its way to another."""
    factors = np.full(tensor.shape[-1], factor, np.float32)
    return channel_affine(
        tensor,
        factors,
        np.zeros_like(factors),
        input_step_size=grid.step_size,
        name=name,
    )


def _rescaled(
    tensor: Any, factor: float, output_grid: ActivationGrid, name: str
) -> Any:
    """Puts a multiple of a tensor on all levels that int8 has at a step size.

    The grid behind the layer cuts off those that it has not.
    """
    grid = grid_of(tensor)
    if grid is not None:
        tensor = _scaled(tensor, factor, grid, name)
    zero_point = 255 - output_grid.high
    return ActivationGrid(
        output_grid.step_size, 8, zero_point, name=f"{name}_grid"
    )(tensor)


def _concatenate(
    layer: Any, output_grid: ActivationGrid | None, tensors: list[Any]
) -> Any:
    """Joins tensors on the step size of the result."""
    if output_grid is not None:
        tensors = [
            _rescaled(tensor, 1.0, output_grid, f"{layer.name}_input{index}")
            for index, tensor in enumerate(tensors)
        ]
    return copied(layer, tensors)


def _relu(layer: Any, output_grid: ActivationGrid | None, tensor: Any) -> Any:
    """Clips a tensor; one that is on a grid already goes to another first."""
    grid = grid_of(tensor)
    if grid is not None and output_grid is not None:
        tensor = _scaled(tensor, 1.0, grid, f"{layer.name}_input")
    return copied(layer, tensor)


def _leaky_relu(
    layer: Any, output_grid: ActivationGrid | None, tensor: Any
) -> Any:
    """Chooses between a tensor and its multiple by the slope.

    A slope such as 0.3 makes halves, which round as float errors have it, if
    the step size stays; one that is off by 1e-4 makes none.
    """
    if output_grid is None or grid_of(tensor) is None:
        return copied(layer, tensor)
    slope = 1.0001 * float(layer.alpha)
    branches = [
        _rescaled(tensor, factor, output_grid, f"{layer.name}_{part}")
        for part, factor in (("positive", 1.0), ("negative", slope))
    ]
    join = layers.Maximum if slope <= 1.0 else layers.Minimum
    return join(name=layer.name)(branches)


def _average(
    layer: Any, output_grid: ActivationGrid | None, tensor: Any
) -> Any:
    """Averages neighbours on the grid that they are on.

    Those of few bits go to a finer grid first, or else their average would
    have no more bits than they have.
    """
    grid, name = grid_of(tensor), layer.name
    if grid is None or output_grid is None:
        return copied(layer, tensor)
    finer = 2 ** (8 - grid.num_bits)
    fine = (grid.step_size / finer, 8, grid.zero_point * finer)
    if finer > 1:
        tensor = _scaled(tensor, 1.0, grid, f"{name}_input")
        tensor = ActivationGrid(*fine, name=f"{name}_input_grid")(tensor)
    grid = AverageGrid(
        *fine,
        rounds_up=isinstance(layer, layers.UpSampling2D),
        name=f"{name}_average",
    )
    return _scaled(grid(copied(layer, tensor)), 1.0, grid, f"{name}_rescaled")


def _upsampling(
    layer: Any, output_grid: ActivationGrid | None, tensor: Any
) -> Any:
    if layer.interpolation == "bilinear":
        return _average(layer, output_grid, tensor)
    return copied(layer, tensor)


def _layer_norm(
    layer: Any, output_grid: ActivationGrid | None, tensor: Any
) -> Any:
    """Normalizes in the numbers of the runtime, if it is between two grids."""
    grid = grid_of(tensor)
    if grid is not None and output_grid is not None:
        return layer_norm(layer, output_grid, grid, tensor)
    copy = layers.LayerNormalization.from_config(layer.get_config())
    outputs = copy(tensor)
    copy.set_weights(layer.get_weights()[: len(copy.weights)])
    return outputs


def _key_mask(
    layer: Any, output_grid: ActivationGrid | None, scores: Any
) -> Any:
    """Cuts scores at the ends of the grid, which they go to first."""
    if output_grid is None:
        return copied(layer, scores)
    config = {**output_grid.get_config(), "name": f"{layer.name}_input_grid"}
    step = output_grid.step_size
    mask = KeyMask(
        layer.regions,
        layer.num_heads,
        low=output_grid.low * step,
        high=output_grid.high * step,
        name=layer.name,
    )
    return mask(ActivationGrid.from_config(config)(scores))


_CALLS: dict[type, Call] = {
    KeyMask: _key_mask,
    AlignedLayerNorm: _layer_norm,
    layers.LayerNormalization: _layer_norm,
    layers.AveragePooling2D: _average,
    layers.Concatenate: _concatenate,
    layers.LeakyReLU: _leaky_relu,
    layers.UpSampling2D: _upsampling,
}


def call_of(layer: Layer) -> Call | None:
    """Returns the function that stands for a layer, if there is one.

    Its arguments are the layer, the grid of the layer's output if that has
    one, and the layer's inputs.
    """
    if role(layer) is Role.RELU:
        return _relu
    return _CALLS.get(type(layer))
