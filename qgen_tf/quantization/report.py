"""What was quantized of a model, what was left alone, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.primitives import primitive_model
from qgen_tf.quantization.quantize import (
    QuantizeWrapper,
    unwrapped,
    wrappers,
)
from qgen_tf.quantization.quantize_registry import Role, role

_TYPES = {
    "weight_bits": "Int64",
    "weight_step": "float64",
    "levels_used": "Int64",
    "activation_bits": "Int64",
    "activation_step": "float64",
    "low": "float64",
    "high": "float64",
}


def quantization_report(model: keras.Model) -> pd.DataFrame:
    """Returns a table with one row for each layer, in order.

    `to_string()` of it is the report as text.

    Args:
      model: from `quantize_model`; a float model has the rows of the layers
        that it would be taken apart into, with empty columns.

    Returns:
      `layer` and `kind` of the float layer; `weight_bits`, `weight_step` (mean
      over channels) and `levels_used` (distinct integers in the weight);
      `activation_bits`, `activation_step` (NaN before `calibrate`), `low` and
      `high` (range of the activations that have a level); `note`, what becomes
      of the layer. What does not apply is empty.

    Raises:
      ModelError: the model is not Functional.
    """
    graph.require_functional(model)
    primitive = model if wrappers(model) else primitive_model(model)
    rows = [_row(layer) for layer in graph.topological_layers(primitive)]
    return pd.DataFrame(rows).astype(_TYPES)


def _row(layer: keras.layers.Layer) -> dict[str, Any]:
    wrapped = isinstance(layer, QuantizeWrapper)
    inner = unwrapped(layer)
    row: dict[str, Any] = {"layer": inner.name, "kind": type(inner).__name__}
    row |= dict.fromkeys(_TYPES, np.nan)
    row["note"] = _note(inner)
    if not wrapped:
        return row
    if layer.quantize_config.override:
        row["note"] += f"; bits by override {layer.quantize_config.override!r}"
    for weight, quantizer, variables in layer._weight_vars:
        grid = quantizer.grid(weight, variables)
        row["weight_bits"] = quantizer.num_bits
        row["weight_step"] = float(grid.step_size.mean())
        row["levels_used"] = len(np.unique(grid.levels))
    quantizer = layer.quantize_config.output_quantizer
    if quantizer is not None:
        step_size, zero_point = quantizer.grid(layer._output_quantizer_vars)
        row["activation_bits"] = quantizer.num_bits
        row["activation_step"] = step_size
        row["low"] = -zero_point * step_size
        row["high"] = (quantizer.span - zero_point) * step_size
    return row


def _note(layer: keras.layers.Layer) -> str:
    if isinstance(layer, keras.layers.InputLayer):
        return "input"
    if role(layer) is Role.UNKNOWN:
        return f"left alone: {type(layer).__name__} is not known"
    return role(layer).value
