"""A deployed network in the arithmetic of the integer runtime.

The deployed network computes in float32; where a sum of products lies within a
float error of the middle between two levels, it may end on the other one than
the runtime. Here sums are whole numbers, and go to the output's grid as the
kernels have it:

* XNNPACK multiplies by a float32 factor and rounds, halves to even, a mean
  with the zero point in it, which is taken off before the rounding;
* the runtime's own kernels multiply by a 31-bit fixed-point number and round
  twice, first to the steps of the sum, then to those of the output (gemmlowp;
  Jacob et al. 2018, section 2.2). Where both steps are of like size, as at few
  bits, that changes many values. The optimized ones take halves up in matrix
  multiplications, and the plain one of dense layers rounds once, in float64.

XNNPACK leaves some operators to the runtime's own kernels. Additions,
LayerNormalization and softmax have layers of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from export.deployed import require_deployed
from export.operands import MEANS, can_be_centered
from export.runtime_add import FixedPointAdd, XnnpackAdd, xnnpack_takes
from export.runtime_norm import RuntimeNorm
from export.runtime_softmax import FixedPointSoftmax, RuntimeSoftmax
from export.sum_grid import (
    DenseGrid,
    FixedPointGrid,
    MeanGrid,
    SumGrid,
    UpwardGrid,
)
from qgen_tf.compat import keras
from qgen_tf.layers import MatMul
from qgen_tf.quantization import graph
from qgen_tf.quantization.constants import AddedConstant
from qgen_tf.quantization.grids import ActivationGrid, grid_of
from qgen_tf.quantization.inference import InferenceModel
from qgen_tf.quantization.quantize_registry import Role, activation_name, role
from qgen_tf.quantization.runtime_layers import copied

layers = keras.layers
Layer: TypeAlias = keras.layers.Layer

_PRODUCTS = (MatMul, layers.Multiply)


def runtime_model(
    network: InferenceModel, *, kernels: str = "xnnpack"
) -> keras.Model:
    """Returns what the runtime computes, for evaluation only.

    Sums, products, means, LayerNormalization and softmax are rounded as the
    kernels do; other operators as in the deployed network, which is right but
    for ties.

    Args:
      network: a deployed network; it is left as it is.
      kernels: "xnnpack", "reference" or "builtin", whose additions round
        halves in a way that is not known: those of "reference" stand for them.

    Raises:
      ExportError: there is no deployed network.
    """
    require_deployed(network)
    if not network.weight_grids:
        return network.model
    call = _Builder(network, kernels).call
    return graph.rebuild(network.model, call, name=network.model.name)


class _Builder:
    """Builds the layers of the runtime, call by call."""

    def __init__(self, network: InferenceModel, kernels: str):
        self._kernels = kernels
        self._sources = graph.producers(network.model)
        self._steps = {
            name: grid.step_size.reshape(-1)
            for name, grid in (
                network.weight_grids | network.affine_grids
            ).items()
        }
        self._norms = network.norm_grids
        self._constants = network.constant_grids
        self._grid_behind = {
            fused_before(self._sources, layer)[-1].name: layer
            for layer in network.model.layers
            if type(layer) is ActivationGrid
        }

    def call(self, layer: Layer, apply: Callable[..., Any]) -> Any:
        """Calls what stands for `layer`; see `graph.rebuild`."""
        if isinstance(layer, layers.InputLayer):
            return apply(lambda images: images)
        runtime_layer = None
        if type(layer) is ActivationGrid:
            runtime_layer = self._grid(layer)
        elif layer.name in self._norms:
            runtime_layer = RuntimeNorm(
                self._norms[layer.name],
                is_plain=self._kernels == "reference",
                name=layer.name,
            )
        elif isinstance(layer, layers.Add | AddedConstant):
            runtime_layer = self._add(layer)
        elif _is_softmax(layer):
            runtime_layer = self._softmax(layer)
        return apply(runtime_layer or functools.partial(copied, layer))

    def _grid(self, layer: ActivationGrid) -> SumGrid | None:
        """Returns the grid behind sums, if it is behind any."""
        *relus, source = fused_before(self._sources, layer)
        limit = getattr(relus[-1], "max_value", None) if relus else None
        grids = _input_grids(source)
        if not grids:
            return None
        input_step, *others = (np.float32(grid.step_size) for grid in grids)
        steps, count = np.ones(1, np.float32), 1
        kind: Callable[..., SumGrid]
        kind = SumGrid if self._kernels == "xnnpack" else FixedPointGrid
        if source.name in self._steps:
            steps = self._steps[source.name]
            if self._kernels == "builtin":
                kind = UpwardGrid
            elif self._kernels == "reference" and type(source) is layers.Dense:
                kind = DenseGrid
        elif source.name in self._norms:
            input_step = np.float32(layer.step_size)
            kind = FixedPointGrid
        elif isinstance(source, _PRODUCTS) and len(others) == 1:
            steps = np.array(others)
            if isinstance(source, MatMul) and not can_be_centered(grids[1]):
                kind = FixedPointGrid  # XNNPACK leaves it out
        elif isinstance(source, MEANS):
            count = int(np.prod(source.input.shape[1:-1]))
            if self._kernels == "xnnpack":
                is_centered = can_be_centered(grids[0])
                zero_point = 0 if is_centered else grids[0].int8_zero_point
                kind = functools.partial(MeanGrid, zero_point=zero_point)
        else:
            return None
        return kind(
            layer,
            input_step,
            steps,
            count=count,
            limit=None if limit is None else float(limit),
        )

    def _add(self, layer: Layer) -> XnnpackAdd | None:
        """Returns the addition of two tensors that are on grids."""
        grids: list[Any] = [*_input_grids(layer)]
        constant = None
        if layer.name in self._constants:
            grids.append(self._constants[layer.name])
            constant = grids[-1].levels.astype(np.int64)
        output = self._grid_behind.get(layer.name)
        if output is None or len(grids) != 2:
            return None
        a, b = (float(grid.step_size) for grid in grids)
        is_xnnpack = self._kernels == "xnnpack" and xnnpack_takes(
            (a, b), output.step_size
        )
        return (XnnpackAdd if is_xnnpack else FixedPointAdd)(
            (a, b), output.step_size, constant, name=layer.name
        )

    def _softmax(self, layer: Layer) -> RuntimeSoftmax | None:
        """Returns the softmax of a tensor that is on a grid."""
        grid = grid_of(layer.input)
        if grid is None:
            return None
        is_plain = self._kernels == "reference"
        return (FixedPointSoftmax if is_plain else RuntimeSoftmax)(
            grid.step_size, name=layer.name
        )


def fused_before(
    sources: dict[str, list[Layer]], grid: ActivationGrid
) -> list[Layer]:
    """Returns what one operator computes for a grid, the last layer first.

    Args:
      sources: from `graph.producers`.
      grid: a layer of that network.

    Returns:
      Any number of ReLUs, and what is before them.
    """
    fused = [sources[grid.name][0]]
    while role(fused[-1]) is Role.RELU:
        fused.append(sources[fused[-1].name][0])
    return fused


def _is_softmax(layer: Layer) -> bool:
    if isinstance(layer, layers.Activation):
        return activation_name(layer) == "softmax"
    return isinstance(layer, layers.Softmax) and layer.axis == -1


def _input_grids(layer: Layer) -> list[ActivationGrid]:
    """Returns the grids of the inputs of a layer, none if one has none."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    grids = [grid_of(tensor) for tensor in inputs]
    found = [grid for grid in grids if grid is not None]
    return found if len(found) == len(grids) else []
