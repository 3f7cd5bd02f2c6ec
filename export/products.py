"""Products of two activations in a file, as XNNPACK takes them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.file_graph import FileGraph
from export.model_file import operator_name, owners
from qgen_tf.layers import MatMul
from qgen_tf.quantization.grids import ActivationGrid, grid_of
from qgen_tf.quantization.inference import InferenceModel


def can_be_centered(grid: ActivationGrid) -> bool:
    """Whether the levels of a second operand fit into int8 around 0."""
    return grid.num_bits < 8 or grid.int8_zero_point == 0


def centered_operands(network: InferenceModel) -> dict[str, ActivationGrid]:
    """Returns the grids of second operands, by the names of their products."""
    grids = {
        layer.name: grid_of(layer.input[1])
        for layer in network.model.layers
        if isinstance(layer, MatMul)
    }
    return {
        name: grid
        for name, grid in grids.items()
        if grid is not None and can_be_centered(grid)
    }


def center_second_operands(
    model: schema.ModelT, products: Collection[str], names: Collection[str]
) -> None:
    """Moves the zero of second operands to 0, which XNNPACK asks for.

    Levels are moved and nothing is rounded: the steps are the same. Without
    it the runtime's own kernels compute the product, which round twice.

    Args:
      model: converted; it is changed.
      products: names of those in `centered_operands`.
      names: of all layers.
    """
    graph = model.subgraphs[0]
    operators = []
    for operator in graph.operators:
        if operator_name(model, operator) == "BATCH_MATMUL":
            path = graph.tensors[operator.outputs[0]].name.decode()
            if not owners(path, names).isdisjoint(products):
                operators += _centered(model, operator)
        operators.append(operator)
    graph.operators = operators


def _centered(
    model: schema.ModelT, operator: schema.OperatorT
) -> list[schema.OperatorT]:
    """Gives an operator another second operand; returns what computes it."""
    number = operator.inputs[1]
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
    operator.inputs = np.array([operator.inputs[0], centered], np.int32)
    return added.operators
