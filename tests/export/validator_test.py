"""What a file may say about places and sizes; see also fuzz_test.py."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from export import validator
from export.model_file import pack, parse
from qgen_tf import errors


def _tensor(name, shape, *, buffer=0, kind=schema.TensorType.INT8):
    return schema.TensorT(
        name=name, shape=np.int32(shape), buffer=buffer, type=kind
    )


def _model():
    """A convolution of a 4x4 image by two filters of 3x3."""
    quantization = schema.QuantizationParametersT(
        scale=np.float32([0.5, 0.25]), zeroPoint=np.int64([0, 0])
    )
    weight = _tensor("weight", (2, 3, 3, 1), buffer=1)
    weight.quantization = quantization
    graph = schema.SubGraphT(
        tensors=[
            _tensor("image", (1, 4, 4, 1)),
            weight,
            _tensor("outputs", (1, 2, 2, 2)),
        ],
        operators=[
            schema.OperatorT(inputs=np.int32([0, 1, -1]), outputs=np.int32([2]))
        ],
        inputs=np.int32([0]),
        outputs=np.int32([2]),
    )
    return schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(
                deprecatedBuiltinCode=schema.BuiltinOperator.CONV_2D,
                builtinCode=schema.BuiltinOperator.CONV_2D,
            )
        ],
        subgraphs=[graph],
        buffers=[
            schema.BufferT(),
            schema.BufferT(data=np.arange(18, dtype=np.uint8)),
        ],
        metadata=[schema.MetadataT(name="version", buffer=1)],
    )


def test_what_is_well_formed_is_read():
    model = parse(pack(_model()))
    (graph,) = model.subgraphs
    assert [tensor.name for tensor in graph.tensors] == [
        b"image",
        b"weight",
        b"outputs",
    ]
    np.testing.assert_array_equal(model.buffers[1].data, np.arange(18))


def test_what_is_left_out_becomes_empty():
    model = _model()
    model.metadata = None
    (graph,) = model.subgraphs
    graph.tensors[0].name = graph.tensors[0].shape = None
    graph.operators[0].outputs = graph.outputs = None
    model = parse(pack(model))
    (graph,) = model.subgraphs
    assert model.metadata == [] and graph.tensors[0].name == b""
    for indices in (
        graph.tensors[0].shape,
        graph.operators[0].outputs,
        graph.outputs,
    ):
        assert indices.shape == (0,)


def _set(path, value):
    """Returns what sets an attribute, such as `tensors.1.shape`, in a model."""

    def change(model):
        *holders, last = path.split(".")
        holder = model
        for name in holders:
            holder = (
                holder[int(name)] if name.isdigit() else getattr(holder, name)
            )
        setattr(holder, last, value)

    return change


def _append(name, value):
    return lambda model: getattr(model, name).append(value)


_GRAPH = "subgraphs.0"
_WEIGHT = f"{_GRAPH}.tensors.1"
_OPERATOR = f"{_GRAPH}.operators.0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("subgraphs", None), "has no graph"),
        (_append("subgraphs", schema.SubGraphT()), "holds 2 functions"),
        (_set("buffers", None), "refers to number 1 of 0"),
        (_set("metadata.0.buffer", 2), "metadata refers to number 2 of 2"),
        (_set("operatorCodes.0.builtinCode", 4321), "code 4321 is unknown"),
        (_set("buffers.1.offset", 64), "buffer 1 lies outside"),
        (_set("buffers.1.data", np.uint8([1])), "of 18 bytes has 1"),
        (_set(f"{_WEIGHT}.buffer", 2), "tensor 1 refers to number 2 of 2"),
        (_set(f"{_WEIGHT}.type", 99), "tensor 1 has the type 99"),
        (_set(f"{_WEIGHT}.type", 5), "tensor 1 has the type 5"),
        (_set(f"{_WEIGHT}.type", 0), "of 72 bytes has 18"),
        (_set(f"{_WEIGHT}.type", 17), "of 9 bytes has 18"),
        (_set(f"{_WEIGHT}.type", 19), "of 5 bytes has 18"),
        (_set(f"{_WEIGHT}.name", b"\xff"), "damaged: UnicodeDecodeError"),
        (_set(f"{_WEIGHT}.externalBuffer", 1), "lies in another file"),
        (_set(f"{_WEIGHT}.shape", np.int32([-2, -9])), r"shape \[-2, -9\]"),
        (_set(f"{_WEIGHT}.shape", np.int32([2**16] * 4)), "has the shape"),
        (_set(f"{_GRAPH}.tensors.0.shape", np.int32([2**16] * 2)), "shape"),
        (
            _set(f"{_WEIGHT}.quantization.scale", np.float32([0.5])),
            "not as many zero points as scales",
        ),
        (
            _set(f"{_WEIGHT}.quantization.scale", np.float32([0.5, np.nan])),
            "not positive numbers",
        ),
        (
            _set(f"{_WEIGHT}.quantization.scale", np.float32([0.5, -0.5])),
            "not positive numbers",
        ),
        (
            _set(f"{_WEIGHT}.quantization.quantizedDimension", 1),
            r"2 scales along axis 1 of \[2, 3, 3, 1\]",
        ),
        (
            _set(f"{_WEIGHT}.quantization.quantizedDimension", 4),
            "2 scales along axis 4",
        ),
        (_set(f"{_WEIGHT}.sparsity", schema.SparsityParametersT()), "sparse"),
        (
            _set(f"{_WEIGHT}.variantTensors", [schema.VariantSubTypeT()]),
            "holds tensors",
        ),
        (_set(f"{_OPERATOR}.opcodeIndex", 1), "operator 0 refers to number 1"),
        (_set(f"{_OPERATOR}.inputs", np.int32([3])), "number 3 of 3"),
        (_set(f"{_OPERATOR}.inputs", np.int32([-2])), "number -2 of 3"),
        (_set(f"{_OPERATOR}.outputs", np.int32([-1])), "number -1 of 3"),
        (_set(f"{_GRAPH}.inputs", np.int32([7])), "graph refers to number 7"),
        (
            _set(f"{_GRAPH}.outputs", np.int32([-1])),
            "graph refers to number -1",
        ),
    ],
)
def test_what_is_not(change, reason):
    model = _model()
    change(model)
    content = pack(model)
    with pytest.raises(errors.ExportError, match=reason):
        parse(content)


def _repeated(name, count, *, num_tensors):
    """Returns a file that lists one tensor many times."""
    builder = schema.flatbuffers.Builder(1024)
    text = builder.CreateString(name)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, text)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, num_tensors)
    for _ in range(num_tensors):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        # unfolded: 10^9 tensors, 10^6 tensors, 3 GB of names
        (_repeated("x", 30000, num_tensors=30000), "30000 functions"),
        (_repeated("x", 1, num_tensors=10**6), "lists 1000000 things"),
        (_repeated(10**5 * "x", 1, num_tensors=30000), "longer than the file"),
    ],
)
def test_small_files_that_unfold_to_large_ones(content, reason):
    assert len(content) < 5 * 10**6
    with pytest.raises(errors.ExportError, match=reason):
        parse(content)


def test_strings_are_counted():
    content = validator.Content(b"0123456789")
    assert content[2:9] == b"2345678" and content[9:] == b"9"
    assert content[0] == ord("0")
    with pytest.raises(errors.ExportError, match="strings are longer"):
        content[:3]
