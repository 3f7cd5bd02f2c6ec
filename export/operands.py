"""Operands of products and means in a file, as XNNPACK takes them best."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.file_graph import FileGraph
from export.model_file import operator_name, owners
from qgen_tf.compat import keras
from qgen_tf.layers import MatMul
from qgen_tf.quantization.grids import ActivationGrid, grid_of
from qgen_tf.quantization.inference import InferenceModel

MEANS = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
)
_OPERANDS = {"BATCH_MATMUL": 1, "MEAN": 0}  # which one is centered


def can_be_centered(grid: ActivationGrid) -> bool:
    """Whether the levels of an operand fit into int8 around 0."""
    return grid.num_bits < 8 or grid.int8_zero_point == 0


def centered_operands(network: InferenceModel) -> dict[str, ActivationGrid]:
    """Returns the grids of these operands, by the names of what reads them.

    They are the second ones of products of two activations, and those of
    means, if they can be centered.
    """
    grids = {
        layer.name: grid_of(
            layer.input[1] if isinstance(layer, MatMul) else layer.input
        )
        for layer in network.model.layers
        if isinstance(layer, (MatMul, *MEANS))
    }
    return {
        name: grid
        for name, grid in grids.items()
        if grid is not None and can_be_centered(grid)
    }


def center_operands(
    model: schema.ModelT, readers: Collection[str], names: Collection[str]
) -> None:
    """Moves the zero of operands to 0, where XNNPACK computes exactly.

    Levels are moved and nothing is rounded: the steps are the same. Without
    it the runtime's own kernels compute a product, which round twice, and
    XNNPACK takes the zero point off a mean in float32, after sums in which
    the zero point is most.

    Args:
      model: converted; it is changed.
      readers: names of those in `centered_operands`.
      names: of all layers.
    """
    graph = model.subgraphs[0]
    operators = []
    for operator in graph.operators:
        operand = _OPERANDS.get(operator_name(model, operator))
        if operand is not None:
            path = graph.tensors[operator.outputs[0]].name.decode()
            if not owners(path, names).isdisjoint(readers):
                operators += _centered(model, operator, operand)
        operators.append(operator)
    graph.operators = operators


def _centered(
    model: schema.ModelT, operator: schema.OperatorT, operand: int
) -> list[schema.OperatorT]:
    """Gives an operator another operand; returns what computes it."""
    number = operator.inputs[operand]
    tensor = model.subgraphs[0].tensors[number]
    if tensor.quantization is None or not tensor.quantization.zeroPoint[0]:
        return []
    added = FileGraph(model)
    dynamic = tensor.shapeSignature
    centered = added.tensor(
        tensor.shape if dynamic is None else dynamic,
        tensor.type,
        tensor.quantization.scale.tolist(),
        name=f"{tensor.name.decode()}/centered",
    )
    options = schema.QuantizeOptionsT()
    added.operator("QUANTIZE", [number], centered, options, version=2)
    operator.inputs = np.array(operator.inputs, np.int32)
    operator.inputs[operand] = centered
    return added.operators
