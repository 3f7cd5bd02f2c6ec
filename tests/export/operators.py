"""Runs single operators of the runtime."""

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from export.file_graph import FileGraph
from export.lane import KERNELS

_TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
}


def run(
    name,
    inputs,
    output,
    *,
    kernels,
    options=None,
    version=1,
):
    """Returns the output of an operator.

    Args:
      name: of the operator.
      inputs: (levels, step size, zero point) of each; one is the input of the
        file, the others are constant.
      output: (shape, dtype, step size, zero point).
      kernels: see `export.lane.KERNELS`.
      options: of the operator.
      version: of the operator.
    """
    model = schema.ModelT(
        version=3,
        buffers=[schema.BufferT()],
        operatorCodes=[],
        subgraphs=[schema.SubGraphT(tensors=[], operators=[])],
    )
    graph = FileGraph(model)

    def tensor(shape, dtype, step, zero_point, data=None):
        index = graph.tensor(shape, _TYPES[np.dtype(dtype)], [step], data=data)
        quantization = model.subgraphs[0].tensors[index].quantization
        quantization.zeroPoint = np.array([zero_point])
        return index

    (levels, *rest), *others = inputs
    first = tensor(levels.shape, levels.dtype, *rest)
    operands = [first] + [
        tensor(data.shape, data.dtype, *grid, data=data)
        for data, *grid in others
    ]
    last = tensor(*output)
    graph.operator(name, operands, last, options, version)
    runtime = litert.Interpreter(
        model_content=graph.file(first, last),
        experimental_op_resolver_type=KERNELS[kernels],
        num_threads=1,
    )
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], levels)
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"])
