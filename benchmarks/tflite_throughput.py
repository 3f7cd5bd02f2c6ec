"""How much of the runtime's throughput an evaluation of a file reaches."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks.rows import Cost, Row, Spread, finish, timed
from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Measures images per second through a TensorFlow Lite file: of `invoke` alone,
with the inputs in place, at several batch sizes and thread counts; of
`export.Interpreter.predict` on an array of float32 images; of a whole
evaluation of a tf.data data set, with losses; and of reading that data set
alone, which is part of the evaluation. The data set is cached in batches, as
measures ask for: to read and decode images costs what it costs.

All of them take turns over the same images, so that whatever else slows the
machine slows all. Shares are those of one turn: the median over rounds, with
the quartiles, of wall time and of processor time. They are of `invoke` at the
batch size and thread count that it is fastest at. On a machine that others use
too, trust the processor time more.

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
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", [1, 16, 64, 256], "of invoke.")
_DATASET_BATCH_SIZE = flags.DEFINE_integer(
    "dataset_batch_size", 4096, "images of a batch of the data set."
)
_THREADS = flags.DEFINE_list(
    "threads",
    sorted({1, os.cpu_count() or 1}),
    "of invoke; predict and evaluate have all cores.",
)
_EXAMPLES = flags.DEFINE_integer(
    "examples", 4096, "images of a turn.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 9, "turns of each contender.", lower_bound=2
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


@dataclasses.dataclass(frozen=True)
class _Contender:
    """What is done with all images in a turn.

    Attributes:
      name: of it.
      batch_size: of `invoke`; None if it is at the default.
      threads: likewise.
      turn: does it.
    """

    name: str
    turn: Callable[[], Any]
    batch_size: int | None = None
    threads: int | None = None

    def __str__(self) -> str:
        if self.batch_size is None:
            return self.name
        return f"{self.name}, batch {self.batch_size}, threads {self.threads}"


def _content() -> tuple[bytes, tuple[int, ...]]:
    """Returns the file, and the shape of an image."""
    import export
    import qgen_tf
    from export import weights

    if _RUN_DIR.value:
        model = qgen_tf.load_model(_RUN_DIR.value)
    else:
        model = qgen_tf.models.MODELS[_MODEL.value]((32, 32, 3), 10)
        model = qgen_tf.quantize_model(model, qgen_tf.BitScheme(4, 8))
        qgen_tf.calibrate(model, [_images((64, *model.input_shape[1:]))])
    network = qgen_tf.inference_model(model)
    content = export.convert(network, storage=_STORAGE.value)
    if _EXPAND.value:
        content = weights.expand(content)
    return content, model.input_shape[1:]


def _images(shape: tuple[int, ...]) -> Any:
    """Returns images, whose values have limits as those of pixels have."""
    import numpy as np

    images = np.random.default_rng(0).uniform(-2.0, 2.0, shape)
    return images.astype(np.float32)


def _invoke(
    content: bytes, images: Any, batch_size: int, threads: int
) -> _Contender:
    """Returns the runtime alone."""
    from ai_edge_litert import interpreter as litert

    raw = litert.Interpreter(model_content=content, num_threads=threads)
    (details,) = raw.get_input_details()
    raw.resize_tensor_input(details["index"], (batch_size, *images.shape[1:]))
    raw.allocate_tensors()

    def turn() -> None:
        for _ in range(0, len(images), batch_size):
            raw.invoke()

    return _Contender("invoke", turn, batch_size, threads)


def _ours(content: bytes, images: Any) -> list[_Contender]:
    """Returns predict, evaluate and the reading of the data set."""
    import numpy as np
    import tensorflow as tf

    import export
    from qgen_tf import measures, reading

    interpreter = export.Interpreter(content)
    labels = np.zeros(len(images), np.int64)
    dataset = reading.untuned(
        tf.data.Dataset.from_tensor_slices((images, labels))
        .batch(_DATASET_BATCH_SIZE.value)
        .cache()
    )
    return [
        _Contender("predict", lambda: interpreter.predict(images)),
        _Contender("evaluate", lambda: measures.evaluate(interpreter, dataset)),
        _Contender("load", lambda: collections.deque(dataset, maxlen=0)),
    ]


def _measured(
    contenders: list[_Contender], rounds: int
) -> list[tuple[_Contender, list[Cost]]]:
    """Returns what the turns of each contender took, round by round."""
    costs: list[list[Cost]] = [[] for _ in contenders]
    for contender in contenders:
        contender.turn()  # the first one allocates
    for round_ in range(rounds):
        turns = list(zip(contenders, costs, strict=True))
        for contender, taken in turns if round_ % 2 else turns[::-1]:
            taken.append(timed(contender.turn))
    return list(zip(contenders, costs, strict=True))


def _rows(
    what: str, measured: list[tuple[_Contender, list[Cost]]]
) -> list[Row]:
    """Returns the shares of `invoke` at its best."""
    invoked = [each for each in measured if each[0].name == "invoke"]
    best, at_best = min(
        invoked,
        key=lambda each: Spread.of(cost.wall for cost in each[1]).median,
    )
    print(f"the fastest: {best}")
    return [
        Row(
            f"{contender.name} of {what}",
            f"share of the runtime's images a second, {kind}",
            Spread.of_ratios(
                [getattr(cost, field) for cost in at_best],
                [getattr(cost, field) for cost in taken],
            ),
            at_least=0.9 if contender.name == "evaluate" else None,
        )
        for contender, taken in measured
        if contender.name in ("predict", "evaluate")
        for field, kind in (("wall", "wall time"), ("cpu", "processor time"))
    ]


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
    batch_sizes, threads = _positive(_BATCH_SIZES), _positive(_THREADS)
    what = _RUN_DIR.value or _MODEL.value
    content, image_shape = _content()
    # whole batches only: `invoke` cannot take fewer images
    count = -(-_EXAMPLES.value // max(batch_sizes)) * max(batch_sizes)
    images = _images((count, *image_shape))
    measured = _measured(
        [
            *itertools.starmap(
                lambda *setting: _invoke(content, images, *setting),
                itertools.product(batch_sizes, threads),
            ),
            *_ours(content, images),
        ],
        _ROUNDS.value,
    )
    print(f"{what}, weights in {_STORAGE.value}; images a second")
    rates = {}
    for contender, taken in measured:
        rates[str(contender)] = rate = {
            field: Spread.of(count / getattr(cost, field) for cost in taken)
            for field in ("wall", "cpu")
        }
        print(
            f"{contender!s:32}{rate['wall'].text(0):>24}, "
            f"of processor time {rate['cpu'].text(0):>24}"
        )
    finish(
        _OUTPUT.value,
        _rows(what, measured),
        model=what,
        storage=_STORAGE.value,
        expand_low_bits=_EXPAND.value,
        dataset_batch_size=_DATASET_BATCH_SIZE.value,
        examples=count,
        rounds=_ROUNDS.value,
        images_a_second={
            name: {kind: spread.median for kind, spread in rate.items()}
            for name, rate in rates.items()
        },
    )


if __name__ == "__main__":
    program.run(
        _main,
        MANUAL,
        (
            *(_MODEL, _RUN_DIR, _STORAGE, _EXPAND, _BATCH_SIZES),
            *(_DATASET_BATCH_SIZE, _THREADS, _EXAMPLES, _ROUNDS, _OUTPUT),
        ),
    )
