"""LayerNormalization in a file: a chain of operators of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.constants import Constant
from export.file_graph import FileGraph
from export.weights import placeholder_number
from qgen_tf import errors

if TYPE_CHECKING:  # reading a file takes no TensorFlow
    from qgen_tf.quantization.layer_norm import NormGrid

_INT16 = schema.TensorType.INT16
_INT32 = schema.TensorType.INT32
_INT64 = schema.TensorType.INT64


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
            graph_of_norm = FileGraph(model)
            inputs, outputs = operator.inputs[0], operator.outputs[0]
            (zero_point,) = graph.tensors[inputs].quantization.zeroPoint
            chain = _Chain(graph_of_norm, name, norms[name])
            chain.write(inputs, outputs, zero_point)
            operators += graph_of_norm.operators
    if missing:
        raise errors.ExportError(
            "the converter made no integer operator of the layers "
            f"{list(missing.values())}."
        )
    graph.operators = operators


def norm_constants(name: str, grid: NormGrid) -> dict[str, Constant]:
    """Returns the constants of a chain.

    Args:
      name: of the layer, with which their names begin.
      grid: its integers.
    """
    constants: dict[str, tuple[np.ndarray, Any]] = {
        "gamma": (grid.factor_levels, grid.factor_step_sizes),
        "beta": (grid.beta_levels, grid.output_16_step_size),
    }
    for index, steps in enumerate(grid.power_step_sizes):
        levels = np.array([grid.epsilon_levels[index]], np.int16)
        constants[f"epsilon{index}"] = levels, steps
    return {
        f"{name}/{part}": (levels, np.float32(steps).reshape(-1))
        for part, (levels, steps) in constants.items()
    }


class _Chain:
    """Adds the operators of one LayerNormalization to a file.

    Tokens are the vectors that are normalized; those of all images are one
    axis. A number a token is spread over the channels by a product with a row,
    since the kernels that add and multiply are slow where shapes differ.
    """

    def __init__(self, graph: FileGraph, name: str, grid: NormGrid):
        self._graph = graph
        self._name = name
        self._grid = grid
        self._constants = norm_constants(name, grid)

    def write(self, inputs: int, outputs: int, zero_point: int) -> None:
        """Adds all operators; see `NormGrid`.

        Args:
          inputs: number of the tensor of the inputs, int8.
          outputs: of that of the outputs.
          zero_point: of the inputs.
        """
        grid, channels = self._grid, self._grid.channels
        ones = np.ones(channels, np.int8)
        x = self._widened(inputs, zero_point)
        fine = grid.centered_step_size
        mean = self._product(x, ones, 1.0 / channels, fine, rows=1)
        mean = self._product(mean, ones, 1.0, fine)
        sub = schema.SubOptionsT(0, False)  # steps that are no powers of two
        x = self._call("SUB", [x, mean], fine, sub, version=5)
        inverse = self._inverse_root(x)
        gamma, steps = self._constants[f"{self._name}/gamma"]
        scale = self._product(inverse, gamma, steps, grid.product_step_size)
        last = grid.output_16_step_size
        mul = schema.MulOptionsT()
        x = self._call("MUL", [x, scale], last, mul, version=4)
        # beta, a row for each token
        step = last / grid.inverse_step_size
        beta = self._product(inverse, 0 * ones, step, last, bias="beta")
        add = schema.AddOptionsT(0, False)
        x = self._call("ADD", [x, beta], last, add, version=5)
        self._graph.operator(
            "QUANTIZE", [x], outputs, schema.QuantizeOptionsT(), version=2
        )

    def _widened(self, inputs: int, zero_point: int) -> int:
        step = self._grid.input_step_size
        if zero_point:  # which 16 bits do not have
            return self._call(
                "QUANTIZE", [inputs], step, schema.QuantizeOptionsT(), version=2
            )
        options = schema.CastOptionsT(schema.TensorType.INT8, _INT16)
        return self._call("CAST", [inputs], step, options)

    def _inverse_root(self, x: int) -> int:
        """Returns one over the root of the sum of squares, a number a token.

        Each range is right where its values neither saturate nor fall below
        what the table of the operator resolves; there, and only there, it is
        the lowest.
        """
        grid = self._grid
        shape = np.array([-1, 1, grid.channels, 1], np.int32)
        column = self._graph.tensor(shape, _INT16, [grid.centered_step_size])
        self._graph.operator(
            "RESHAPE",
            [x, self._graph.tensor(shape.shape, _INT32, data=shape)],
            column,
            schema.ReshapeOptionsT(newShape=shape),
        )
        inverses = []
        for index, step in enumerate(grid.power_step_sizes):
            options = schema.BatchMatMulOptionsT(False, False, False)
            power = self._call(
                "BATCH_MATMUL", [x, column], step, options, size=1, version=3
            )
            levels, _ = self._constants[f"{self._name}/epsilon{index}"]
            epsilon = self._constant(f"epsilon{index}", _INT16, levels.shape)
            power = self._call(
                "ADD",
                [power, epsilon],
                step,
                schema.AddOptionsT(0, False),
                size=1,
                version=5,
            )
            step = grid.inverse_step_size
            inverses.append(
                self._call("RSQRT", [power], step, size=1, version=3)
            )
        lowest, *others = inverses
        for other in others:
            lowest = self._call(
                "MINIMUM",
                [lowest, other],
                grid.inverse_step_size,
                schema.MaximumMinimumOptionsT(),
                size=1,
                version=4,
            )
        return lowest

    def _product(
        self,
        inputs: int,
        levels: np.ndarray,
        steps: float | np.ndarray,
        output_step: float,
        *,
        rows: int | None = None,
        bias: str | None = None,
    ) -> int:
        """Multiplies each token by a matrix of one row or one column.

        Args:
          inputs: 16 bits.
          levels: int8 [channels], of the matrix.
          steps: of them, one or one for each channel.
          output_step: of the products.
          rows: 1 if the channels are summed over; else a number becomes as
            many as there are channels.
          bias: part of the name of the constant that is added.
        """
        channels = self._grid.channels
        shape = (1, channels) if rows else (channels, 1)
        weight = self._graph.tensor(
            shape,
            schema.TensorType.INT8,
            np.float32(steps).reshape(-1).tolist(),
            data=levels,
            name=f"{self._name}/gamma" if np.size(steps) > 1 else "",
        )
        operands = [inputs, weight, -1]
        if bias is not None:
            operands[2] = self._constant(bias, _INT64, (channels,))
        return self._call(
            "FULLY_CONNECTED",
            operands,
            output_step,
            schema.FullyConnectedOptionsT(keepNumDims=True),
            size=rows or channels,
            version=4,
        )

    def _constant(self, part: str, kind: int, shape: Sequence[int]) -> int:
        name = f"{self._name}/{part}"
        levels, steps = self._constants[name]
        return self._graph.tensor(
            shape, kind, steps.tolist(), data=levels, name=name
        )

    def _call(
        self,
        operator: str,
        operands: Sequence[int],
        step_size: float,
        options: Any = None,
        *,
        size: int | None = None,
        version: int = 1,
    ) -> int:
        """Adds an operator and the tensor that it writes."""
        output = self._graph.tensor(
            (-1, 1, 1, size or self._grid.channels),
            _INT16,
            [float(step_size)],
            name=f"{self._name}/{operator}",
        )
        self._graph.operator(operator, operands, output, options, version)
        return output
