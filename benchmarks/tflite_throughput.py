"""How much of the runtime's throughput an evaluation of a file reaches."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Measures images per second through a TensorFlow Lite file: of `invoke` alone,
with the inputs in place; of `export.Interpreter.predict` on an array of
float32 images; of a whole evaluation of a tf.data data set, with losses; and
of reading that data set alone, which is part of the evaluation.

All of them, at all batch sizes and thread counts, take turns over the same
images, so that whatever else slows the machine slows all. Shares of `invoke`
are those of one turn: the median over rounds, with the quartiles, of wall time
and of processor time. The last lines compare predict and evaluate at the
default batch size and threads with `invoke` at its best. On a machine that
others use too, trust the processor time more, at one thread most; it counts
the loading of images, which runs beside the runtime where a core is free.

Examples:
  python -m benchmarks.tflite_throughput --model=nin --examples=8192
  python -m benchmarks.tflite_throughput --model=mobilenet_v2 --storage=int4
  python -m benchmarks.tflite_throughput --run_dir=runs/cifar10_nin-w4a8-... \\
    --output=throughput.json
"""

_MODEL = flags.DEFINE_enum(
    "model",
    "nin",
    ["mobilenet_v2", "nin", "resnet18", "resnet20"],
    "untrained, on images of 32x32 pixels, with weights of 4 bits.",
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "of a trained model to take instead."
)
_STORAGE = flags.DEFINE_enum(
    "storage", "int8", ["int8", "int4", "int2"], "of weights."
)
_EXPAND = flags.DEFINE_boolean(
    "expand_low_bits", False, "run weights of fewer bits in 8."
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", [1, 16, 64, 256], "of a call.")
_DATASET_BATCH_SIZE = flags.DEFINE_integer(
    "dataset_batch_size", 256, "images of a batch of the data set."
)
_THREADS = flags.DEFINE_list("threads", [1, 2], "of the runtime.")
_EXAMPLES = flags.DEFINE_integer(
    "examples", 1024, "images of a turn.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 9, "turns of each contender.", lower_bound=2
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A number over rounds.

    Attributes:
      median: of the rounds.
      quartiles: the first and the third.
    """

    median: float
    quartiles: tuple[float, float]

    def text(self, digits: int) -> str:
        """Returns the median and, in parentheses, the quartiles."""
        numbers = (self.median, *self.quartiles)
        middle, first, third = (f"{number:.{digits}f}" for number in numbers)
        return f"{middle} ({first}-{third})"


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Images per second at one batch size and thread count.

    Attributes:
      batch_size: images a call.
      threads: of the runtime.
      invoke: of the runtime alone.
      predict: of arrays.
      evaluate: of a data set.
      load: of the data set alone.
      predict_share: predict over invoke, of wall and processor time.
      evaluate_share: evaluate over invoke, likewise.
    """

    batch_size: int
    threads: int
    invoke: Spread
    predict: Spread
    evaluate: Spread
    load: Spread
    predict_share: tuple[Spread, Spread]
    evaluate_share: tuple[Spread, Spread]

    def __str__(self) -> str:
        rates = (self.invoke, self.predict, self.evaluate, self.load)
        shares = (*self.predict_share, *self.evaluate_share)
        return (
            f"{self.batch_size:>5}{self.threads:>8}"
            + "".join(f"{rate.median:>12.0f}" for rate in rates)
            + "".join(f"{share.text(2):>18}" for share in shares)
        )


_CONTENDERS = ("invoke", "predict", "evaluate", "load")
_HEADER = (
    f"{'batch':>5}{'threads':>8}{'invoke/s':>12}{'predict/s':>12}"
    f"{'evaluate/s':>12}{'load/s':>12}{'predict, wall':>18}{'predict, cpu':>18}"
    f"{'evaluate, wall':>18}{'evaluate, cpu':>18}"
)


def _content() -> tuple[bytes, tuple[int, ...]]:
    """Returns the file, and the shape of an image."""
    import numpy as np

    import export
    import qgen_tf
    from export import weights

    if _RUN_DIR.value:
        model = qgen_tf.load_model(_RUN_DIR.value)
    else:
        model = qgen_tf.models.MODELS[_MODEL.value]((32, 32, 3), 10)
        model = qgen_tf.quantize_model(model, qgen_tf.BitScheme(4, 8))
        generator = np.random.default_rng(0)
        images = generator.normal(size=(64, *model.input_shape[1:]))
        qgen_tf.calibrate(model, [images.astype(np.float32)])
    network = qgen_tf.inference_model(model)
    content = export.convert(network, storage=_STORAGE.value)
    if _EXPAND.value:
        content = weights.expand(content)
    return content, model.input_shape[1:]


def _turns(
    content: bytes, images: Any, batch_size: int, threads: int
) -> dict[str, Callable[[], Any]]:
    """Returns what each contender does with the images in its turn."""
    import numpy as np
    import tensorflow as tf
    from ai_edge_litert import interpreter as litert

    import export
    from qgen_tf import measures

    raw = litert.Interpreter(model_content=content, num_threads=threads)
    (details,) = raw.get_input_details()
    raw.resize_tensor_input(details["index"], (batch_size, *images.shape[1:]))
    raw.allocate_tensors()
    runtime = export.Interpreter(
        content, batch_size=batch_size, num_threads=threads
    )
    labels = np.zeros(len(images), np.int64)
    dataset = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .batch(_DATASET_BATCH_SIZE.value)
        .prefetch(tf.data.AUTOTUNE)
    )

    def invoke() -> None:
        for _ in range(0, len(images), batch_size):
            raw.invoke()

    return {
        "invoke": invoke,
        "predict": lambda: runtime.predict(images),
        "evaluate": lambda: measures.evaluate(runtime.predict, dataset),
        "load": lambda: collections.deque(dataset, maxlen=0),
    }


def _spread(numbers: Any) -> Spread:
    import numpy as np

    first, median, third = np.percentile(numbers, [25, 50, 75])
    return Spread(float(median), (float(first), float(third)))


def _shares(rates: Any, reference: Any) -> tuple[Spread, Spread]:
    """Returns ratios of wall and of processor time, turn by turn."""
    wall, cpu = rates / reference
    return _spread(wall), _spread(cpu)


def measure(
    content: bytes,
    image_shape: tuple[int, ...],
    settings: list[tuple[int, int]],
) -> dict[tuple[int, int], dict[str, Any]]:
    """Returns images per second.

    Args:
      content: of the file.
      image_shape: height, width, channels.
      settings: batch size and thread count of each.

    Returns:
      For each setting and contender a float64 array [2, rounds], by wall and
      by processor time.
    """
    import numpy as np

    # whole batches only: `invoke` cannot take fewer images
    largest = max(batch_size for batch_size, _ in settings)
    count = -(-_EXAMPLES.value // largest) * largest
    images = np.random.default_rng(0).normal(size=(count, *image_shape))
    images = images.astype(np.float32)
    turns = {setting: _turns(content, images, *setting) for setting in settings}
    for turn in itertools.chain(*(each.values() for each in turns.values())):
        turn()  # the first one allocates
    rates = {
        setting: {name: np.zeros((2, _ROUNDS.value)) for name in _CONTENDERS}
        for setting in settings
    }
    for round_ in range(_ROUNDS.value):
        order = _CONTENDERS if round_ % 2 else _CONTENDERS[::-1]
        for setting, name in itertools.product(settings, order):
            wall, cpu = time.perf_counter(), time.process_time()
            turns[setting][name]()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rates[setting][name][:, round_] = count / wall, count / cpu
    return rates


def _positive(holder: flags.FlagHolder) -> list[int]:
    try:
        numbers = [int(number) for number in holder.value]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise errors.ConfigError(
            f"--{holder.name} must be positive integers with commas between "
            "them."
        )
    return numbers


def _main() -> None:
    from export import interpreter

    settings = list(
        itertools.product(_positive(_BATCH_SIZES), _positive(_THREADS))
    )
    default = (interpreter.BATCH_SIZE, os.cpu_count() or 1)
    if default not in settings:
        settings.append(default)
    what = _RUN_DIR.value or _MODEL.value
    bits = " run in 8 bits" if _EXPAND.value else ""
    print(f"{what}, weights in {_STORAGE.value}{bits}")
    print(_HEADER, flush=True)
    rates = measure(*_content(), settings)
    results = []
    for (batch_size, threads), each in rates.items():
        results.append(
            Throughput(
                batch_size,
                threads,
                **{name: _spread(each[name][0]) for name in _CONTENDERS},
                predict_share=_shares(each["predict"], each["invoke"]),
                evaluate_share=_shares(each["evaluate"], each["invoke"]),
            )
        )
        print(results[-1])
    best = max(results, key=lambda result: result.invoke.median)
    at_best = rates[best.batch_size, best.threads]["invoke"]
    shares = {
        name: _shares(rates[default][name], at_best)
        for name in ("predict", "evaluate")
    }
    print(
        f"invoke is best at batch {best.batch_size} with {best.threads} "
        f"threads; of that, at batch {default[0]} with {default[1]}:"
    )
    for name, share in shares.items():
        wall, cpu = (spread.text(2) for spread in share)
        print(f"  {name:10}{wall} by wall, {cpu} by processor time")
    if _OUTPUT.value:
        content = {
            "model": what,
            "storage": _STORAGE.value,
            "expand_low_bits": _EXPAND.value,
            "dataset_batch_size": _DATASET_BATCH_SIZE.value,
            "rounds": _ROUNDS.value,
            "results": [dataclasses.asdict(result) for result in results],
            "best": {"batch_size": best.batch_size, "threads": best.threads},
            "default": {"batch_size": default[0], "threads": default[1]},
            "default_share_of_best": {
                name: [dataclasses.asdict(spread) for spread in share]
                for name, share in shares.items()
            },
        }
        text = json.dumps(content, indent=2)
        pathlib.Path(_OUTPUT.value).write_text(f"{text}\n")


if __name__ == "__main__":
    program.run(
        _main,
        MANUAL,
        (
            _MODEL,
            _RUN_DIR,
            _STORAGE,
            _EXPAND,
            _BATCH_SIZES,
            _DATASET_BATCH_SIZE,
            _THREADS,
            _EXAMPLES,
            _ROUNDS,
            _OUTPUT,
        ),
    )
