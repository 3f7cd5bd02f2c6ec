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
    from qgen_tf.quantization.norm_grid import NormGrid

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
        "beta": (grid.beta_levels, grid.beta_step_size),
        "epsilon": (grid.epsilon_levels, grid.epsilon_step_size),
    }
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
        self._column = np.ones((grid.channels, 1), np.int8)

    def write(self, inputs: int, outputs: int, zero_point: int) -> None:
        """Adds all operators; see `NormGrid`.

        Args:
          inputs: number of the tensor of the inputs, int8.
          outputs: of that of the outputs.
          zero_point: of the inputs.
        """
        grid = self._grid
        x = self._centered(self._widened(inputs, zero_point))
        inverse = self._inverse_root(x)
        row = self._product(inverse, self._column, 1.0, grid.inverse_step_size)
        x = self._times(x, row, grid.unit_step_size)
        correction = self._correction(x, inverse)
        scale = self._scaled(correction, "gamma", grid.product_step_size)
        x = self._times(x, scale, grid.output_16_step_size)
        # beta, a row for each token
        last = grid.beta_step_size
        step = last / grid.correction_step_size
        nothing = 0 * self._column
        beta = self._product(correction, nothing, step, last, bias="beta")
        x = self._plus(x, beta, grid.output_step_size)
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

    def _centered(self, x: int) -> int:
        """Subtracts the mean of each token."""
        step = self._grid.centered_step_size
        share = self._grid.mean_step_size
        mean = self._product(x, 127 * self._column.T, share, step)
        mean = self._product(mean, self._column, 1.0, step)
        # steps that are no powers of two
        options = schema.SubOptionsT(0, False)
        return self._call("SUB", [x, mean], step, options, version=5)

    def _inverse_root(self, x: int) -> int:
        """Returns one over the length of each token, roughly.

        Each range is right where its values neither saturate nor fall below
        what the table of the operator resolves; there, and only there, it is
        the lowest.
        """
        grid = self._grid
        step = grid.inverse_step_size
        column = self._as_column(x, grid.centered_step_size)
        lowest, other = (
            self._root(self._squared(x, column, power_step), step)
            for power_step in grid.power_step_sizes
        )
        options = schema.MaximumMinimumOptionsT()
        return self._call(
            "MINIMUM", [lowest, other], step, options, size=1, version=4
        )

    def _correction(self, x: int, inverse: int) -> int:
        """Returns what makes the length of each token, of about one, one."""
        grid = self._grid
        unit, step = grid.unit_step_size, grid.unit_power_step_size
        power = self._squared(x, self._as_column(x, unit), step)
        epsilon = self._scaled(inverse, "epsilon", unit)
        epsilon = self._times(epsilon, epsilon, step, size=1)
        power = self._plus(power, epsilon, step, size=1)
        return self._root(power, grid.correction_step_size)

    def _as_column(self, x: int, step: float) -> int:
        shape = np.array([-1, 1, self._grid.channels, 1], np.int32)
        column = self._graph.tensor(shape, _INT16, [step])
        self._graph.operator(
            "RESHAPE",
            [x, self._graph.tensor(shape.shape, _INT32, data=shape)],
            column,
            schema.ReshapeOptionsT(newShape=shape),
        )
        return column

    def _squared(self, row: int, column: int, step: float) -> int:
        options = schema.BatchMatMulOptionsT(False, False, False)
        return self._call(
            "BATCH_MATMUL", [row, column], step, options, size=1, version=3
        )

    def _root(self, power: int, step: float) -> int:
        return self._call("RSQRT", [power], step, size=1, version=3)

    def _times(self, a: int, b: int, step: float, **size: int) -> int:
        options = schema.MulOptionsT()
        return self._call("MUL", [a, b], step, options, version=4, **size)

    def _plus(self, a: int, b: int, step: float, **size: int) -> int:
        options = schema.AddOptionsT(0, False)
        return self._call("ADD", [a, b], step, options, version=5, **size)

    def _scaled(self, number: int, part: str, output_step: float) -> int:
        """Multiplies a number a token by each of the levels of a constant."""
        name = f"{self._name}/{part}"
        levels, steps = self._constants[name]
        column = levels.reshape(-1, 1)
        return self._product(number, column, steps, output_step, name=name)

    def _product(
        self,
        inputs: int,
        matrix: np.ndarray,
        steps: float | np.ndarray,
        output_step: float,
        *,
        name: str = "",
        bias: str | None = None,
    ) -> int:
        """Multiplies each token by a matrix of one row or one column.

        Args:
          inputs: 16 bits.
          matrix: int8, a row for each output.
          steps: of it, one or one for each row.
          output_step: of the products.
          name: of the matrix.
          bias: part of the name of the constant that is added.
        """
        size = len(matrix)
        weight = self._graph.tensor(
            matrix.shape,
            schema.TensorType.INT8,
            np.float32(steps).reshape(-1).tolist(),
            data=matrix,
            name=name,
        )
        operands = [inputs, weight, -1]
        if bias is not None:
            name = f"{self._name}/{bias}"
            levels, scales = self._constants[name]
            operands[2] = self._graph.tensor(
                levels.shape, _INT64, scales.tolist(), data=levels, name=name
            )
        return self._call(
            "FULLY_CONNECTED",
            operands,
            output_step,
            schema.FullyConnectedOptionsT(keepNumDims=True),
            size=size,
            version=4,
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
