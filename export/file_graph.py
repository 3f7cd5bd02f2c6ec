"""The graph of a TensorFlow Lite file in the making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.model_file import pack


class FileGraph:
    """Adds to a file; its tensors are known by their numbers.

    Attributes:
      operators: those that were added, in order.
    """

    def __init__(self, model: schema.ModelT | None = None):
        """Starts with a file, or with an empty one."""
        self._model = model or schema.ModelT(
            version=3,
            buffers=[schema.BufferT()],  # number 0 stands for no data
            operatorCodes=[],
            subgraphs=[schema.SubGraphT(tensors=[], operators=[])],
        )
        (self._graph,) = self._model.subgraphs
        self.operators: list[schema.OperatorT] = []

    def tensor(
        self,
        shape: Sequence[int] | np.ndarray,
        kind: int,
        scales: Sequence[float] = (),
        axis: int = 0,
        data: np.ndarray | None = None,
        name: str = "",
    ) -> int:
        """Adds a tensor, whose zero point is 0, and returns its number.

        Args:
          shape: -1 stands for the batch.
          kind: of `schema.TensorType`.
          scales: one, or one for each channel; none of a tensor of numbers.
          axis: of the channels.
          data: its values if it is constant.
          name: for readers of the file.
        """
        dynamic = np.array(shape, np.int32)
        tensor = schema.TensorT(
            shape=np.abs(dynamic), type=kind, name=name or None
        )
        if (dynamic < 0).any():
            tensor.shapeSignature = dynamic
        if scales:
            tensor.quantization = schema.QuantizationParametersT(
                scale=np.array(scales, np.float32),
                zeroPoint=np.zeros(len(scales), np.int64),
                quantizedDimension=axis,
            )
        if data is not None:
            tensor.buffer = len(self._model.buffers)
            values = np.frombuffer(data.tobytes(), np.uint8)
            self._model.buffers.append(schema.BufferT(data=values))
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        output: int,
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Adds an operator; `operators` of a file that was there stay."""
        operator = schema.OperatorT(
            opcodeIndex=self._code(name, version),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
        )
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.operators.append(operator)

    def _code(self, name: str, version: int) -> int:
        """Returns the number of an operator's code, which may be new."""
        number = getattr(schema.BuiltinOperator, name)
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if (code.builtinCode, code.version) == (number, version):
                return index
        codes.append(
            schema.OperatorCodeT(
                builtinCode=number,
                deprecatedBuiltinCode=min(number, 127),  # of 8 bits
                version=version,
            )
        )
        return len(codes) - 1

    def file(self, inputs: int, outputs: int) -> bytes:
        """Returns the file of the operators that were added."""
        self._graph.inputs = np.array([inputs], np.int32)
        self._graph.outputs = np.array([outputs], np.int32)
        self._graph.operators = self.operators
        return pack(self._model)
