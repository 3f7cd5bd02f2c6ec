"""Moves a trained model to where rounding in deployment changes nothing.

The integer runtime adds biases in whole steps, those of the input times those
of the weight. Training does not see that, and half a step of a bias can move
an activation by one of its own steps.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.folding import foldable_norms, folded
from qgen_tf.quantization.inference import (
    InferenceModel,
    inference_model,
    input_step_size,
)
from qgen_tf.quantization.norm_grid import NormGrid
from qgen_tf.quantization.quantize import unwrapped, wrappers

Layer: TypeAlias = keras.layers.Layer

# Weights that are relatively so close to the edge of a bin may be rounded to
# either side of it, as kernels and compilers differ in the last digits.
_EDGE = 2e-6
# So many steps float32 still tells apart in a sum. A channel with a larger
# bias is as good as constant.
_RESOLVED = 2**22


def align(model: keras.Model) -> dict[str, float]:
    """Moves biases of a trained model to those that its file will have.

    The bias of a linear layer becomes the one that `inference_model` rounds it
    to. Where BatchNorm is folded into the layer, its beta moves such that the
    folded bias does, or its moving mean if it has no beta; so do those of
    other BatchNorm, and the beta of LayerNormalization. The model then
    computes what its deployed network computes, up to errors of float32, and
    LayerNormalization, out of training, what the runtime does: see
    `AlignedLayerNorm`. Weights at the very edge of a bin move away from it, by
    some millionths of their value, so that no compiler rounds them to the
    other side. Call it when training is over; a second call changes no bit.

    Args:
      model: from `quantize_model`, calibrated and trained; it is changed.

    Returns:
      Name of a layer to the largest move of what it adds, in steps of that:
      at most one half, and next to nothing if it was aligned before.

    Raises:
      ModelError: the model is not Functional, or not calibrated, or deployed
        already.
    """
    network = inference_model(model)
    for wrapper in wrappers(model):
        for latent, quantizer, variables in wrapper._weight_vars:
            _leave_edges(latent, quantizer, variables)
    norms = foldable_norms(model)
    moves = {}
    for layer in graph.topological_layers(model):
        inner = unwrapped(layer)
        name = inner.name
        if name in network.norm_grids:
            moves[name] = _align_layer_norm(inner, network.norm_grids[name])
        elif name in network.weight_grids:
            moves[name] = _align(network, name, inner, norms.get(layer.name))
        elif name in network.affine_grids and _is_batch_norm(inner):
            moves[name] = _align(network, name, None, inner)
    return moves


def _leave_edges(latent: Any, quantizer: Any, variables: Any) -> None:
    """Moves weights off the edges of their bins; their levels stay."""
    weight = latent.numpy()
    sizes = tf.abs(weight)
    largest = sizes == quantizer.reduce(tf.reduce_max, sizes)
    levels = quantizer.grid(latent, variables).levels
    moved = weight
    # some quantizers measure the others by the largest: one at a time
    for part, change in itertools.product((largest, ~largest), (_EDGE, -_EDGE)):
        nearby = np.where(part, weight * np.float32(1.0 + change), weight)
        crosses = quantizer.grid(nearby, variables).levels != levels
        back = weight * np.float32(1.0 - 2.0 * change)
        moved = np.where(part & crosses, back, moved)
    latent.assign(moved)


def _is_batch_norm(layer: Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _align_layer_norm(layer: Layer, grid: NormGrid) -> float:
    old = layer.beta.numpy() if layer.center else grid.beta
    layer.align(grid)
    return float(np.abs(grid.beta - old).max() / grid.output_16_step_size)


def _align(
    network: InferenceModel, name: str, linear: Layer | None, norm: Layer | None
) -> float:
    """Aligns what one layer of the deployed network adds.

    Args:
      network: deployed.
      name: of its layer.
      linear: the linear layer that it stands for, if it does.
      norm: the BatchNorm that it stands for, if it does.

    Returns:
      The largest move in steps.
    """
    deployed = network.model.get_layer(name)
    grid = (network.weight_grids | network.affine_grids)[name]
    input_step = input_step_size(deployed.input)
    wanted = deployed.bias.numpy()
    factor, bias = folded(linear, norm, len(wanted))
    variable, slope = _movable(linear, norm, factor)
    if variable is None or input_step is None or grid.bias_levels is None:
        return 0.0
    old = variable.numpy()
    variable.assign(np.zeros_like(old))
    _, rest = folded(linear, norm, len(wanted))
    moves = (slope != 0.0) & (np.abs(grid.bias_levels) < _RESOLVED)
    new = (wanted - rest) / np.where(moves, slope, 1.0)
    variable.assign(np.where(moves, new, old))
    steps = grid.bias_step_sizes(input_step)
    return float(np.max(moves * np.abs(wanted - bias) / steps))


def _movable(
    linear: Any, norm: Layer | None, factor: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Returns a variable, and how much of it the folded bias holds."""
    ones = np.ones_like(factor)
    if norm is None:
        return linear.bias, ones  # None without a bias
    if norm.center:
        return norm.beta, ones
    return norm.moving_mean, -factor
