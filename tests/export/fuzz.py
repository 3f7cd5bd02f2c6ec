"""Damages TensorFlow Lite files at random and sees whether we notice.

Whatever is in a file, reading and running it must succeed or raise an
ExportError. Run by hand for longer than the test does:

  python -m tests.export.fuzz --mutations=5000 --seed=1
  python -m tests.export.fuzz --repeat=failing.tflite
"""

import argparse
import functools
import pathlib
import sys

import numpy as np
import tqdm

from export import flatbuffer, sandbox, tflite, weights
from export.model_file import pack, parse
from qgen_tf import errors
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness

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


def _truncate(content, generator):
    return content[: generator.integers(len(content))]


def _flip_bits(content, generator):
    data = bytearray(content)
    for _ in range(generator.integers(1, 9)):
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    return bytes(data)


def _overwrite_word(content, generator):
    data = np.frombuffer(content, "<u4", len(content) // 4).copy()
    for _ in range(generator.integers(1, 4)):
        index = generator.integers(len(data))
        # a number as large as others in the file, or one at a limit
        data[index] = generator.choice([*_WORDS, *generator.choice(data, 4)])
    return data.tobytes()


def _splice(content, generator):
    names = list(originals())
    _, other = originals()[names[generator.integers(len(names))]]
    length = generator.integers(1, 200)
    start = generator.integers(len(content))
    source = generator.integers(len(other))
    # a shorter or longer file if the lengths differ
    end = start + generator.integers(length + 1)
    return content[:start] + other[source : source + length] + content[end:]


def _swap_runs(content, generator):
    size = 4 * int(generator.integers(1, 17))
    first, second = sorted(generator.choice(len(content) // 4, 2) * 4)
    second = max(second, first + size)
    one, two = content[first : first + size], content[second : second + size]
    middle = content[first + size : second]
    return content[:first] + two + middle + one + content[second + size :]


def _rewire(content, generator):
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


MUTATIONS = {
    mutation.__name__.strip("_"): mutation
    for mutation in (
        _truncate,
        _flip_bits,
        _overwrite_word,
        _splice,
        _swap_runs,
        _rewire,
    )
}


def mutations(seed, count):
    """Yields (how it came about, network, content)."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        file = list(originals())[number % len(originals())]
        kind = list(MUTATIONS)[number // len(originals()) % len(MUTATIONS)]
        network, content = originals()[file]
        mutated = MUTATIONS[kind](content, generator)
        yield f"{kind} of {file}, number {number}", network, mutated


def try_file(network, content, child):
    """Reads and runs a file; what is raised but ExportErrors is a mistake.

    Args:
      network: a deployed network that the file could be of.
      content: of the file.
      child: a `Sandbox`.

    Returns:
      Which of the steps the file was refused by.
    """
    steps = {
        "parse": lambda: parse(content),
        "read": lambda: weights.read_weights(parse(content)),
        "expand": lambda: weights.expand(content),
        "check": lambda: flatbuffer.check(network, content),
        "run": lambda: sandbox.probe(content, sandbox=child, num_threads=1),
    }
    refusals = {}
    for name, step in steps.items():
        try:
            step()
        except errors.ExportError as error:
            refusals[name] = str(error)
            assert refusals[name], name
    return refusals


def _arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mutations", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument(
        "--output", default="failing.tflite", help="what is not noticed"
    )
    parser.add_argument("--repeat", help="a file to try instead")
    return parser.parse_args()


def _main():
    arguments = _arguments()
    with sandbox.Sandbox(timeout=20.0) as child:
        if arguments.repeat:
            content = pathlib.Path(arguments.repeat).read_bytes()
            for network, _ in originals().values():
                print(try_file(network, content, child))
            return
        counts = {}
        for how, network, content in tqdm.tqdm(
            mutations(arguments.seed, arguments.mutations),
            total=arguments.mutations,
        ):
            try:
                refusals = try_file(network, content, child)
            except BaseException:
                pathlib.Path(arguments.output).write_bytes(content)
                print(
                    f"not noticed: {how}. Repeat it with python -m "
                    f"tests.export.fuzz --repeat={arguments.output}",
                    file=sys.stderr,
                )
                raise
            for what in (*refusals, *("crash" for _ in _crashes(refusals))):
                counts[what] = counts.get(what, 0) + 1
    print(f"{arguments.mutations} mutations; refused by {counts}")


def _crashes(refusals):
    return [text for text in refusals.values() if "on this file" in text]


if __name__ == "__main__":
    _main()
