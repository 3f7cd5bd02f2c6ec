"""The deployed network: what a trained model is once it leaves training.

Measures are taken of it, the theory reads its bin widths, and export converts
it and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    affine,
    constants,
    graph,
    grids,
    runtime_layers,
)
from qgen_tf.quantization.folding import foldable_norms, folded
from qgen_tf.quantization.layer_norm import DeployedLayerNorm
from qgen_tf.quantization.norm_grid import NormGrid
from qgen_tf.quantization.primitives import primitive_model
from qgen_tf.quantization.quantize import (
    QuantizeWrapper,
    unwrapped,
    wrappers,
)
from qgen_tf.quantization.quantize_registry import (
    WEIGHTS,
    Role,
    activation_name,
    role,
)
from qgen_tf.quantization.runtime_layers import copied

Layer: TypeAlias = keras.layers.Layer


@dataclasses.dataclass(frozen=True)
class InferenceModel:
    """A deployed network.

    Attributes:
      model: flat Functional model of plain Keras layers and
        `ActivationGrid`s, BatchNorm folded, weights on their grids.
      weight_grids: name of a layer of `model` to the grid of its weight; empty
        for a float network.
      affine_grids: name of a `ChannelAffine` of `model` (BatchNorm that could
        not be folded, `Rescaling`, a change of step size) to the grid of its
        factors.
      constant_grids: name of an `AddedConstant` of `model` to the grid of its
        values.
      norm_grids: name of a LayerNormalization between two grids to its
        integers.
    """

    model: keras.Model
    weight_grids: dict[str, grids.WeightGrid]
    affine_grids: dict[str, grids.WeightGrid] = dataclasses.field(
        default_factory=dict
    )
    constant_grids: dict[str, grids.WeightGrid] = dataclasses.field(
        default_factory=dict
    )
    norm_grids: dict[str, NormGrid] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name


def inference_model(model: keras.Model) -> InferenceModel:
    """Returns the network that is deployed for a trained model.

    BatchNorm that directly follows a convolution or dense layer is folded into
    it, for float and quantized models alike; between grids, other BatchNorm
    becomes a factor and an offset for each channel. Each quantized weight is
    frozen at `levels * step_size`, each activation quantizer at its step size,
    and each bias is rounded to the int32 grid of the integer runtime, whose
    step is that of the input times that of the weight.

    Args:
      model: a Functional model, float or from `quantize_model`; it is left as
        it is.

    Raises:
      ModelError: the model is not Functional, or not calibrated, or deployed
        already.
    """
    if isinstance(model, InferenceModel):
        raise errors.ModelError(
            f"{model.name!r} is a deployed network already: use it as it is, "
            "or pass the model that was trained."
        )
    graph.require_functional(model)
    trained = model if wrappers(model) else primitive_model(model)
    builder = _Builder(trained)
    deployed = graph.rebuild(trained, builder.call, name=model.name)
    return InferenceModel(
        deployed,
        builder.weight_grids,
        _grids_of(deployed, affine.ChannelAffine),
        _grids_of(deployed, constants.AddedConstant),
        _grids_of(deployed, DeployedLayerNorm),
    )


def _grids_of(model: keras.Model, kind: type[Layer]) -> dict[str, Any]:
    """Maps the names of layers of a kind to the grids that they hold."""
    found = [layer for layer in model.layers if isinstance(layer, kind)]
    return {layer.name: layer.grid for layer in found}


def input_step_size(tensor: Any) -> float | None:
    """Returns the step size of the grid that a symbolic tensor is on.

    Args:
      tensor: output of a layer of a deployed network.

    Returns:
      The step size, or None if the tensor is float.
    """
    grid = grids.grid_of(tensor)
    return None if grid is None else grid.step_size


def _output_grid(layer: Layer) -> grids.ActivationGrid | None:
    """Returns the grid that the layer's output is on, to be called."""
    if not isinstance(layer, QuantizeWrapper):
        return None
    quantizer = layer.quantize_config.output_quantizer
    if quantizer is None:
        return None
    step_size, zero_point = quantizer.grid(layer._output_quantizer_vars)
    if not np.isfinite(step_size):
        raise errors.ModelError(
            f"layer {layer.name!r} has no activation step size: call "
            "qgen_tf.calibrate(model, dataset) first."
        )
    return grids.ActivationGrid(
        step_size,
        quantizer.num_bits,
        zero_point,
        name=f"{layer.layer.name}_grid",
    )


def _affine(inner: Layer, inputs: Any) -> Any:
    """Applies BatchNorm and the like, on a grid if the inputs are."""
    step_size = input_step_size(inputs)
    if step_size is None:
        return copied(inner, inputs)
    factor, offset = affine.coefficients(inner, inputs.shape[-1])
    return affine.channel_affine(
        inputs, factor, offset, input_step_size=step_size, name=inner.name
    )


def _constant(layer: Layer, inputs: Any) -> Any:
    """Adds the constant of a layer, on its grid if it has one."""
    inner = unwrapped(layer)
    if not (isinstance(layer, QuantizeWrapper) and layer._weight_vars):
        return copied(inner, inputs)
    ((latent, quantizer, variables),) = layer._weight_vars
    grid = quantizer.grid(latent, variables)
    grid = dataclasses.replace(
        grid,
        levels=_expanded(inner, grid.levels).astype(np.int8),
        latent=_expanded(inner, grid.latent),
    )
    return constants.added_constant(inputs, grid, name=inner.name)


def _expanded(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Returns the constant that a layer makes of its weight."""
    copy = type(layer).from_config(layer.get_config())
    copy.build(layer.input_shape)
    copy.set_weights([weight])
    return copy.constant().numpy()


class _Builder:
    """Builds the deployed layers of a trained model, call by call."""

    def __init__(self, model: keras.Model):
        self.weight_grids: dict[str, grids.WeightGrid] = {}
        self._norms = foldable_norms(model)
        self._folded = {norm.name for norm in self._norms.values()}

    def call(self, layer: Layer, apply: Callable[..., Any]) -> Any:
        """Calls what stands for `layer`; see `graph.rebuild`."""
        inner = unwrapped(layer)
        grid = _output_grid(layer)
        if role(inner) is Role.LINEAR:
            outputs = apply(lambda tensor: self._linear(layer, tensor)(tensor))
        elif role(inner) is Role.CONSTANT:
            outputs = apply(functools.partial(_constant, layer))
        elif self._vanishes(inner):
            outputs = apply(lambda tensor: tensor)
        elif role(inner) is Role.AFFINE:
            outputs = apply(functools.partial(_affine, inner))
        elif call := runtime_layers.call_of(inner):
            outputs = apply(functools.partial(call, inner, grid))
        else:
            outputs = apply(functools.partial(copied, inner))
        return outputs if grid is None else grid(outputs)

    def _vanishes(self, inner: Layer) -> bool:
        return (
            isinstance(inner, keras.layers.InputLayer | keras.layers.Dropout)
            or inner.name in self._folded
            or type(inner) is keras.layers.Activation
            and activation_name(inner) == "linear"
        )

    def _linear(self, layer: Layer, inputs: Any) -> Layer:
        inner = unwrapped(layer)
        config = {**inner.get_config(), "use_bias": True, "dtype": "float32"}
        copy = type(inner).from_config(config)
        copy.build(inputs.shape)
        norm = self._norms.get(layer.name)
        factor, bias = folded(inner, norm, copy.bias.shape[0])
        self._assign(copy, layer, factor, bias, input_step_size(inputs))
        return copy

    def _assign(
        self,
        copy: Layer,
        layer: Layer,
        factor: np.ndarray,
        bias: np.ndarray,
        input_step: float | None,
    ) -> None:
        """Sets weight and bias of `copy`, on their grids if there are any."""
        weight = WEIGHTS[type(copy)]
        variable = getattr(copy, weight.attribute)
        channels = [1] * variable.shape.rank
        for axis in weight.channel_axes:
            channels[axis] = variable.shape[axis]
        factor = factor.reshape(channels)
        if not (isinstance(layer, QuantizeWrapper) and layer._weight_vars):
            latent = getattr(unwrapped(layer), weight.attribute).numpy()
            variable.assign(latent * factor)
            copy.bias.assign(bias)
            return
        ((latent, quantizer, variables),) = layer._weight_vars
        grid = quantizer.grid(latent, variables)
        if layer.name in self._norms:
            grid = grids.scaled(grid, factor)
        if input_step is not None:
            grid = grids.with_bias(grid, bias, input_step)
            bias = grid.bias(input_step)
        variable.assign(grid.values)
        copy.bias.assign(bias)
        self.weight_grids[copy.name] = grid
