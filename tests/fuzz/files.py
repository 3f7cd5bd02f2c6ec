"""Damaged TensorFlow Lite files: see `tests.fuzz`."""

import contextlib
import functools

import numpy as np

from export import flatbuffer, sandbox, tflite, weights
from export.model_file import pack, parse
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness
from tests.fuzz import damage

STEPS = ("parse", "read", "expand", "check", "run")
CHAINED = False

_WORDS = (0, 1, 2, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)


@functools.cache
def originals():
    """Returns name -> (deployed network, its file)."""
    model = harness.randomize_norms(harness.residual())
    twin = quantize_model(model, BitScheme(4, 8))
    calibrate(twin, harness.calibration_data())
    integer, floating = inference_model(twin), inference_model(model)
    return {
        "int8": (integer, tflite.convert(integer)),
        "int4": (integer, tflite.convert(integer, storage="int4")),
        "float": (floating, tflite.convert(floating)),
    }


def _overwrite_word(generator, content):
    data = np.frombuffer(content, "<u4", len(content) // 4).copy()
    for _ in range(generator.integers(1, 4)):
        index = generator.integers(len(data))
        # a number as large as others in the file, or one at a limit
        data[index] = generator.choice([*_WORDS, *generator.choice(data, 4)])
    return data.tobytes()


def _splice(generator, content):
    names = list(originals())
    _, other = originals()[names[generator.integers(len(names))]]
    length = generator.integers(1, 200)
    start = generator.integers(len(content))
    source = generator.integers(len(other))
    # a shorter or longer file if the lengths differ
    end = start + generator.integers(length + 1)
    return content[:start] + other[source : source + length] + content[end:]


def _swap_runs(generator, content):
    size = 4 * int(generator.integers(1, 17))
    first, second = sorted(generator.choice(len(content) // 4, 2) * 4)
    second = max(second, first + size)
    one, two = content[first : first + size], content[second : second + size]
    middle = content[first + size : second]
    return content[:first] + two + middle + one + content[second + size :]


def _rewire(generator, content):
    """Changes what a well-formed file says."""
    model = parse(content)
    (graph,) = model.subgraphs
    tensor = graph.tensors[generator.integers(len(graph.tensors))]
    operator = graph.operators[generator.integers(len(graph.operators))]
    things = (graph.tensors, graph.operators, model.buffers)
    kind = generator.integers(7)
    if kind < len(things):
        first, second = generator.choice(len(things[kind]), 2)
        swapped = things[kind]
        swapped[first], swapped[second] = swapped[second], swapped[first]
    elif kind == 3:
        operator.inputs = operator.inputs.copy()
        place = generator.integers(len(operator.inputs))
        operator.inputs[place] = generator.integers(-1, len(graph.tensors))
    elif kind == 4:
        tensor.type = int(generator.integers(23))
    elif kind == 5 and len(tensor.shape):
        tensor.shape = tensor.shape.copy()
        place = generator.integers(len(tensor.shape))
        tensor.shape[place] = generator.choice([-1, 0, 1, 2, 7, 2**16, 2**30])
    else:
        code = model.operatorCodes[generator.integers(len(model.operatorCodes))]
        code.builtinCode = int(generator.integers(207))
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    return pack(model)


MUTATIONS = (
    damage.truncate,
    damage.flip_bits,
    _overwrite_word,
    _splice,
    _swap_runs,
    _rewire,
)


def make(generator):
    """Returns (how it came about, (network, damaged file))."""
    file = damage.pick(generator, list(originals()))
    mutation = damage.pick(generator, MUTATIONS)
    network, content = originals()[file]
    how = f"{mutation.__name__.strip('_')} of {file}"
    return how, (network, mutation(generator, content))


@contextlib.contextmanager
def trying():
    """Gives what turns (network, file) into the steps that read the file."""
    with sandbox.Sandbox(timeout=20.0) as child:
        yield lambda given: steps(*given, child)


def steps(network, content, child):
    """Returns what reads and runs a file.

    Args:
      network: a deployed network that the file could be of.
      content: of the file.
      child: a `Sandbox`.
    """
    functions = (
        lambda: parse(content),
        lambda: weights.read_weights(parse(content)),
        lambda: weights.expand(content),
        lambda: flatbuffer.check(network, content),
        lambda: sandbox.probe(content, sandbox=child, num_threads=1),
    )
    return dict(zip(STEPS, functions, strict=True))
