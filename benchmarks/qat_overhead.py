"""What a step of quantization-aware training costs over a float step."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from typing import Any

from absl import flags

from benchmarks import step_worker
from benchmarks.rows import Cost, Row, Spread, finish
from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Measures a training step (forward, backward, SGD with momentum; in Keras the
function that fit calls for each batch) of quantized models over that of the
float model which they are made from.

A contender and its float model run in two processes that take turns, step by
step, so that whatever else slows the machine slows both. Ratios are those of
neighbouring steps: the median over rounds, with the quartiles. On a machine
that others use too, trust the processor time more than the wall time, and
--threads=1 most. Memory is the peak of each process; both have loaded the
libraries of the contender, as a program has that trains both models.

Contenders are wXaY (qgen_tf's LSQ with X-bit weights and Y-bit activations),
tfmot (its default 8-bit quantize_model), qkeras (quantized_bits(4) and
quantized_relu(4)), and brevitas (4 bits, over float PyTorch). The last two
need an environment of their own:

  pip install tensorflow tf_keras qkeras 'pyparsing<3.2' \\
    safetensors packaging tensorflow-model-optimization
  pip install torch brevitas

Examples:
  python -m benchmarks.qat_overhead --model=resnet20 --batch_size=128
  python -m benchmarks.qat_overhead --model=resnet18 --batch_size=64 \\
    --contenders=w4a4,brevitas --brevitas_python=brevitas/bin/python \\
    --output=overhead.json
"""

_MODEL = flags.DEFINE_enum(
    "model", "resnet20", ["resnet18", "resnet20"], "on images of 32x32 pixels."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "images in a step.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 15, "steps measured of each contender.", lower_bound=2
)
_THREADS = flags.DEFINE_integer(
    "threads", 0, "of each process; 0 for as many as it likes.", lower_bound=0
)
_CONTENDERS = flags.DEFINE_list(
    "contenders", ["w4a4", "w8a8", "tfmot"], "what is measured, see above."
)
_QKERAS_PYTHON = flags.DEFINE_string(
    "qkeras_python", None, "a Python that has QKeras; this one if left away."
)
_BREVITAS_PYTHON = flags.DEFINE_string(
    "brevitas_python", None, "one that has Brevitas, likewise."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_PEERS = ("tfmot", "qkeras", "brevitas")


@dataclasses.dataclass(frozen=True)
class Overhead:
    """What a contender's training step costs.

    Attributes:
      contender: its name.
      cpu: processor time over that of a float step.
      wall: wall time, likewise.
      memory: peak of the process over that of the float process.
      cpu_seconds: processor time of its fastest step.
      wall_seconds: wall time of its fastest step.
      peak_bytes: peak memory of its process.
    """

    contender: str
    cpu: Spread
    wall: Spread
    memory: float
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.contender:10}{self.cpu.text():>20}{self.wall.text():>20}"
            f"{self.memory:>9.2f}"
            f"{1e3 * self.cpu_seconds:>10.0f}{1e3 * self.wall_seconds:>10.0f}"
            f"{self.peak_bytes / 2**20:>10.0f}"
        )


_HEADER = (
    f"{'contender':10}{'cpu ratio':>20}{'wall ratio':>20}{'memory':>9}"
    f"{'cpu ms':>10}{'wall ms':>10}{'peak MiB':>10}"
)


def _worker(contender: str, *, beside: str) -> step_worker.Worker:
    """Starts `contender` with the environment and libraries of `beside`."""
    python, module, library = {
        "brevitas": (
            _BREVITAS_PYTHON.value,
            "benchmarks.torch_steps",
            "brevitas.nn",
        ),
        "qkeras": (_QKERAS_PYTHON.value, "benchmarks.keras_steps", "qkeras"),
        "tfmot": (
            None,
            "benchmarks.keras_steps",
            "tensorflow_model_optimization",
        ),
    }.get(beside, (None, "benchmarks.keras_steps", "qgen_tf.quantization"))
    python = python or sys.executable
    if os.sep in python:  # the worker runs in another folder
        python = os.path.abspath(python)
    numbers = (_BATCH_SIZE.value, _THREADS.value)
    return step_worker.Worker(
        python,
        module,
        [contender, library, _MODEL.value, *map(str, numbers)],
    )


def measure(contender: str) -> Overhead:
    """Measures a contender beside the float model of its framework.

    Raises:
      WorkerError: one of the two does not run.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for name in ("float", contender):
            workers.append(_worker(name, beside=contender))
            stack.callback(workers[-1].kill)
        costs: list[list[Cost]] = [[], []]
        for round_ in range(_ROUNDS.value):
            for index in (0, 1) if round_ % 2 else (1, 0):
                costs[index].append(workers[index].step())
        float_peak, peak = (worker.close() for worker in workers)
    float_cpu, cpu = ([cost.cpu for cost in part] for part in costs)
    float_wall, wall = ([cost.wall for cost in part] for part in costs)
    return Overhead(
        contender=contender,
        cpu=Spread.of_ratios(cpu, float_cpu),
        wall=Spread.of_ratios(wall, float_wall),
        memory=peak / float_peak,
        cpu_seconds=min(cpu),
        wall_seconds=min(wall),
        peak_bytes=peak,
    )


def _require_known(contenders: list[str]) -> None:
    for name in contenders:
        if name not in _PEERS and not re.fullmatch(r"w\d+a\d+", name):
            raise errors.ConfigError(
                f"the contender {name!r} is unknown: choose from wXaY (such "
                "as w4a4), tfmot, qkeras and brevitas."
            )


def _main() -> None:
    _require_known(_CONTENDERS.value)
    settings: dict[str, Any] = {
        "model": _MODEL.value,
        "batch_size": _BATCH_SIZE.value,
        "rounds": _ROUNDS.value,
        "threads": _THREADS.value,
    }
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    print(_HEADER, flush=True)
    results: list[Overhead] = []
    missing = {}
    for contender in _CONTENDERS.value:
        try:
            results.append(measure(contender))
            print(results[-1], flush=True)
        except step_worker.WorkerError as error:
            print(f"{contender:10}not measured: {error}", flush=True)
            missing[contender] = str(error)
    finish(
        _OUTPUT.value,
        _rows(results),
        **settings,
        results=[dataclasses.asdict(result) for result in results],
        missing=missing,
    )


def _rows(results: list[Overhead]) -> list[Row]:
    """Returns the rows; ours are to cost no more than any peer."""
    peers = [each for each in results if each.contender in _PEERS]
    rows = []
    for result in results:
        what = f"{result.contender}, {_MODEL.value}, batch {_BATCH_SIZE.value}"
        is_ours = result not in peers
        rows += [
            Row(
                what,
                "processor time over a float step",
                result.cpu,
                at_most=min((each.cpu.median for each in peers), default=None)
                if is_ours
                else None,
            ),
            Row(
                what,
                "peak memory over the float process",
                Spread(result.memory),
                at_most=1.3 if is_ours else None,
            ),
        ]
    return rows


if __name__ == "__main__":
    program.run(
        _main,
        MANUAL,
        (
            _MODEL,
            _BATCH_SIZE,
            _ROUNDS,
            _THREADS,
            _CONTENDERS,
            _QKERAS_PYTHON,
            _BREVITAS_PYTHON,
            _OUTPUT,
        ),
    )
