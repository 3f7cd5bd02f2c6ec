"""LayerNormalization in a file: a chain of operators of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.file_graph import FileGraph
from export.weights import placeholder_number
from qgen_tf import errors

if TYPE_CHECKING:  # reading a file takes no TensorFlow
    from qgen_tf.quantization.layer_norm import NormGrid

_INT16 = schema.TensorType.INT16
_INT32 = schema.TensorType.INT32


def write_norms(
    model: schema.ModelT, norms: Mapping[str, NormGrid], *, first: int
) -> None:
    """Puts chains of operators in the place of placeholders.

    Args:
      model: converted from a graph in which the layers are
        `PlaceholderLinear`s of one factor a channel; it is changed.
      norms: name of a layer to its integers, in the order of the numbers.
      first: number of the first of them.

    Raises:
      ExportError: the operator of a layer is missing.
    """
    graph = model.subgraphs[0]
    missing: dict[float | None, str] = dict(enumerate(norms, start=first))
    operators = []
    for operator in graph.operators:
        name = missing.pop(placeholder_number(model, operator), None)
        if name is None:
            operators.append(operator)
        else:
            operators += _chain(model, operator, name, norms[name])
    if missing:
        raise errors.ExportError(
            "the converter made no integer operator of the layers "
            f"{list(missing.values())}."
        )
    graph.operators = operators


def norm_constants(
    name: str, grid: NormGrid
) -> dict[str, tuple[np.ndarray, np.float32]]:
    """Returns the levels and step sizes of the constants of a chain.

    Args:
      name: of the layer, with which their names begin.
      grid: its integers.
    """
    epsilon = np.array([grid.epsilon_level], np.int16)
    return {
        f"{name}/epsilon": (epsilon, np.float32(grid.variance_step_size)),
        f"{name}/gamma": (grid.gamma_levels, np.float32(grid.gamma_step_size)),
        f"{name}/beta": (grid.beta_levels, np.float32(grid.shifted_step_size)),
    }


def _shape(tensor: schema.TensorT) -> Sequence[int]:
    """Returns the shape of a tensor, with -1 for the batch."""
    signature = tensor.shapeSignature
    return tensor.shape if signature is None else signature


def _chain(
    model: schema.ModelT,
    placeholder: schema.OperatorT,
    name: str,
    grid: NormGrid,
) -> Sequence[schema.OperatorT]:
    """Returns what computes a LayerNormalization; see `NormGrid`."""
    graph = FileGraph(model)
    inputs, outputs = placeholder.inputs[0], placeholder.outputs[0]
    *batch, channels = _shape(model.subgraphs[0].tensors[inputs])

    def call(
        operator: str,
        operands: Sequence[int],
        step_size: float,
        options: Any = None,
        *,
        size: int = channels,
        version: int = 1,
    ) -> int:
        output = graph.tensor(
            (*batch, size), _INT16, [step_size], name=f"{name}/{operator}"
        )
        graph.operator(operator, operands, output, options, version)
        return output

    def constant(part: str) -> int:
        levels, step_size = constants[f"{name}/{part}"]
        return graph.tensor(
            levels.shape,
            _INT16,
            [float(step_size)],
            data=levels,
            name=f"{name}/{part}",
        )

    def mean(values: int, step_size: float) -> int:
        return call(
            "MEAN",
            [values, axis],
            step_size,
            schema.ReducerOptionsT(keepDims=True),
            size=1,
            version=2,
        )

    constants = norm_constants(name, grid)
    axis = graph.tensor((1,), _INT32, data=np.array([len(batch)], np.int32))
    # general step sizes, not powers of two
    add, sub = schema.AddOptionsT(0, False), schema.SubOptionsT(0, False)
    mul = schema.MulOptionsT()
    fine = grid.centered_step_size
    x = call("QUANTIZE", [inputs], fine, schema.QuantizeOptionsT(), version=2)
    x = call("SUB", [x, mean(x, fine)], fine, sub, version=5)
    square = call("MUL", [x, x], grid.square_step_size, mul, version=4)
    variance_step = grid.variance_step_size
    variance = mean(square, variance_step)
    variance = call(
        "ADD",
        [variance, constant("epsilon")],
        variance_step,
        add,
        size=1,
        version=5,
    )
    inverse = call(
        "RSQRT", [variance], grid.inverse_step_size, size=1, version=3
    )
    x = call("MUL", [x, inverse], grid.normalized_step_size, mul, version=4)
    shifted = grid.shifted_step_size
    x = call("MUL", [x, constant("gamma")], shifted, mul, version=4)
    x = call("ADD", [x, constant("beta")], shifted, add, version=5)
    graph.operator(
        "QUANTIZE", [x], outputs, schema.QuantizeOptionsT(), version=2
    )
    return graph.operators
