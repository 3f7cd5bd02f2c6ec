"""A TensorFlow Lite file made without TensorFlow."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def _tensor(name, shape, *, buffer=0):
    return schema.TensorT(
        name=name,
        shape=np.int32([1, *shape[1:]] if shape[0] == -1 else shape),
        shapeSignature=np.int32(shape),
        buffer=buffer,
        type=schema.TensorType.FLOAT32,
    )


def dense():
    """Returns the object tree of `images @ WEIGHT.T`; four inputs, no bias."""
    kind = schema.BuiltinOperator.FULLY_CONNECTED
    operator = schema.OperatorT(
        inputs=np.int32([0, 1, -1]),
        outputs=np.int32([2]),
        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
        builtinOptions=schema.FullyConnectedOptionsT(),
    )
    graph = schema.SubGraphT(
        tensors=[
            _tensor("images", (-1, 4)),
            _tensor("weight", (3, 4), buffer=1),
            _tensor("logits", (-1, 3)),
        ],
        operators=[operator],
        inputs=np.int32([0]),
        outputs=np.int32([2]),
    )
    return schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(
                builtinCode=kind, deprecatedBuiltinCode=kind, version=1
            )
        ],
        subgraphs=[graph],
        buffers=[
            schema.BufferT(),
            schema.BufferT(data=WEIGHT.reshape(-1).view(np.uint8)),
        ],
    )


def crashing():
    """Returns an object tree that ends the process that loads its file."""
    model = dense()
    model.subgraphs[0].operators[0].inputs = np.int32([0, -1, -1])
    return model
