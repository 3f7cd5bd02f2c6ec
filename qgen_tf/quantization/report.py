"""What was quantized of a model, what was left alone, and why."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qgen_tf.compat import keras
from qgen_tf.quantization import graph, grids
from qgen_tf.quantization.quantize import QuantizeWrapper
from qgen_tf.quantization.quantize_registry import Role, role


def quantization_report(model: keras.Model) -> pd.DataFrame:
    """Returns a table with one row for each layer, in order.

    Args:
      model: from `quantize_model`; a float model has the same table with empty
        columns.

    Returns:
      `layer` and `kind` of the float layer; `weight_bits`, `weight_step` (mean
      over channels) and `levels_used` (distinct integers in the weight);
      `activation_bits`, `activation_step` (NaN before `calibrate`) and
      `signed`; `note`, what becomes of the layer. What does not apply is empty.

    Raises:
      ModelError: the model is not flat and Functional.
    """
    graph.require_functional(model)
    return pd.DataFrame(
        [_row(layer) for layer in graph.topological_layers(model)]
    ).astype(
        {
            "weight_bits": "Int64",
            "levels_used": "Int64",
            "activation_bits": "Int64",
            "signed": "boolean",
        }
    )


def _row(layer: keras.layers.Layer) -> dict[str, object]:
    wrapped = isinstance(layer, QuantizeWrapper)
    inner = layer.layer if wrapped else layer
    row: dict[str, object] = {
        "layer": inner.name,
        "kind": type(inner).__name__,
        "weight_bits": None,
        "weight_step": np.nan,
        "levels_used": None,
        "activation_bits": None,
        "activation_step": np.nan,
        "signed": None,
        "note": _note(inner),
    }
    if not wrapped:
        return row
    for weight, quantizer, variables in layer._weight_vars:
        step_size = quantizer.step_size(variables).numpy()
        grid = grids.weight_grid(weight.numpy(), step_size, quantizer.num_bits)
        row["weight_bits"] = quantizer.num_bits
        row["weight_step"] = float(step_size.mean())
        row["levels_used"] = len(np.unique(grid.levels))
    quantizer = layer.quantize_config.output_quantizer
    if quantizer is not None:
        row["activation_bits"] = quantizer.num_bits
        row["activation_step"] = float(
            quantizer.step_size(layer._output_quantizer_vars)
        )
        row["signed"] = quantizer.signed
    return row


def _note(layer: keras.layers.Layer) -> str:
    if isinstance(layer, keras.layers.InputLayer):
        return "input"
    if role(layer) is Role.UNKNOWN:
        return f"left alone: {type(layer).__name__} is not known"
    return role(layer).value
