"""What reading, cropping and augmenting images adds to a training step."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from qgen_tf.cli import program

MANUAL = """\
Measures the step of a training on a stream of real images (read from files,
cropped at random, mirrored, and augmented as the flags say) over the same step
on one batch that stays in memory, and how fast the stream is on its own.

Both kinds of steps take turns, so that whatever else slows the machine slows
both; between turns the program waits until the stream has filled its buffers.
The ratio is that of one round: median over rounds, with the quartiles. Wall
time is what a training waits; processor time is what the stream costs where
model and stream share the processor. "a core" is images per second of
processor time: an accelerator that trains on N images per second needs N over
that many cores.

Examples:
  python -m benchmarks.input_pipeline --dataset=image_folder:PATH
  python -m benchmarks.input_pipeline --dataset=imagenet2012 \\
    --rand_augment=0.5 --batch_size=256
  python -m benchmarks.input_pipeline --dataset=image_folder:PATH \\
    --enlarge=375 --output=pipeline.json
"""

_DATASET = flags.DEFINE_string(
    "dataset", None, "a name as in dataset.name of a config."
)
_NUM_TRAIN = flags.DEFINE_integer(
    "num_train", 0, "images to take; 0 = all.", lower_bound=0
)
_ENLARGE = flags.DEFINE_integer(
    "enlarge",
    0,
    "pixels of the shorter side of a noisy copy of 512 images, 4:3, in JPEG "
    "files that are read instead: 375, as in ImageNet, where it is not at "
    "hand; 0 = none.",
    lower_bound=0,
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 224, "pixels a side of what is trained on.", lower_bound=32
)
_MODEL = flags.DEFINE_enum(
    "model",
    "resnet50",
    ["mobilenet_v2", "resnet18", "resnet50"],
    "untrained, for images of ImageNet.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 16, "images of a step.", lower_bound=1
)
_RAND_AUGMENT = flags.DEFINE_float("rand_augment", 0.0, "magnitude; 0 = off.")
_MIXUP = flags.DEFINE_float("mixup", 0.0, "alpha; 0 = off.")
_CUTMIX = flags.DEFINE_float("cutmix", 0.0, "alpha; 0 = off.")
_STEPS = flags.DEFINE_integer("steps", 4, "of a turn.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "turns of each.", lower_bound=2)
_STREAM_IMAGES = flags.DEFINE_integer(
    "stream_images",
    1024,
    "images of a turn of the stream alone.",
    lower_bound=1,
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_STREAM_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """A number over rounds.

    Attributes:
      what: was measured.
      median: of the rounds.
      first: quartile.
      third: quartile.
    """

    what: str
    median: float
    first: float
    third: float

    def __str__(self) -> str:
        return (
            f"{self.what:44}{self.median:10.3f}"
            f"  ({self.first:.3f}-{self.third:.3f})"
        )


def _row(what: str, numbers: Any) -> Row:
    import numpy as np

    first, median, third = np.percentile(numbers, [25, 50, 75])
    return Row(what, float(median), float(first), float(third))


def _splits(dataset: str) -> Any:
    from qgen_tf import data
    from qgen_tf.config import default_config

    fields = default_config().dataset
    fields.update(
        name=dataset,
        image_size=_IMAGE_SIZE.value,
        center_crop=0.875,
        normalization="imagenet",
        random_resized_crop=0.08,
        flip=True,
        num_train=_NUM_TRAIN.value if not _ENLARGE.value else 0,
        rand_augment=_RAND_AUGMENT.value,
        mixup=_MIXUP.value,
        cutmix=_CUTMIX.value,
    )
    return data.load(fields)


def _stream(splits: Any) -> Iterator[Any]:
    stream = splits.training_stream(
        batch_size=_BATCH_SIZE.value, seed=0, epochs=10**6
    )
    # the last batch of an epoch may be smaller, and its step shorter
    return iter(
        stream.filter(lambda images, _: len(images) == _BATCH_SIZE.value)
    )


def _train_function(splits: Any) -> Callable[[Iterator[Any]], Any]:
    from qgen_tf import models
    from qgen_tf.compat import keras

    model = models.build(
        {"name": _MODEL.value, "stem": "imagenet"},
        splits.image_shape,
        splits.num_classes,
    )
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    return model.make_train_function()


def _wait_until_idle() -> None:
    busy = time.process_time()
    while True:
        time.sleep(0.2)
        busy, before = time.process_time(), busy
        if busy - before < 0.02:
            return


def _timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Returns seconds of wall and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def steps(splits: Any) -> Any:
    """Returns seconds a step, float64 [real or cached, wall or cpu, rounds]."""
    import numpy as np
    import tensorflow as tf

    train = _train_function(splits)
    real = _stream(splits)
    cached = iter(tf.data.Dataset.from_tensors(next(real)).cache().repeat())

    def turn(batches: Iterator[Any]) -> None:
        for _ in range(_STEPS.value):
            logs = train(batches)
        logs["loss"].numpy()  # until it is there

    contenders = (real, cached)
    for batches in contenders:
        turn(batches)  # the first one compiles
    seconds = np.zeros((2, 2, _ROUNDS.value))
    for round_ in range(_ROUNDS.value):
        for which in (0, 1) if round_ % 2 else (1, 0):
            _wait_until_idle()
            taken = _timed(lambda which=which: turn(contenders[which]))
            seconds[which, :, round_] = taken
    return seconds / _STEPS.value


def rates(splits: Any) -> Any:
    """Returns images a second of the stream, float64 [wall or cpu, rounds]."""
    import numpy as np

    batches = _stream(splits)
    count = -(-_STREAM_IMAGES.value // _BATCH_SIZE.value)

    def turn() -> None:
        for _ in range(count):
            next(batches)

    turn()  # the first one fills the buffers
    seconds = np.array([_timed(turn) for _ in range(_STREAM_ROUNDS)])
    return count * _BATCH_SIZE.value / seconds.T


def _enlarged(dataset: str, folder: str) -> str:
    """Writes larger files and returns the name of the data set of them."""
    import tensorflow as tf

    from qgen_tf.data import datasets

    source = datasets.source(dataset)
    size = (_ENLARGE.value, _ENLARGE.value * 4 // 3)
    for split, stored in (("train", source.train), ("test", source.test)):
        for index, (image, label) in enumerate(stored.images().take(512)):
            image = tf.image.resize(image, size, method="bicubic")
            # as much detail as makes files of the size of ImageNet's
            noise = tf.random.stateless_normal(image.shape, (index, 0))
            image = tf.saturate_cast(image + 12.0 * noise, tf.uint8)
            path = pathlib.Path(
                folder, split, source.class_names[label], f"{index}.jpg"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_jpeg(image, quality=90).numpy())
    return f"image_folder:{folder}"


def _measure(dataset: str) -> list[Row]:
    splits = _splits(dataset)
    wall, cpu = rates(splits)
    rows = [
        _row("images/s of the stream", wall),
        _row("images/s of the stream, a core", cpu),
    ]
    real, cached = steps(splits)
    rows += [
        _row("seconds a step, real images", real[0]),
        _row("seconds a step, cached batch", cached[0]),
        _row("real / cached, wall time", real[0] / cached[0]),
        _row("real / cached, processor time", real[1] / cached[1]),
    ]
    return rows


def _main() -> None:
    dataset = program.require(_DATASET)
    with tempfile.TemporaryDirectory() as folder:
        if _ENLARGE.value:
            dataset = _enlarged(dataset, folder)
        rows = _measure(dataset)
    print(
        f"{_MODEL.value}, {_IMAGE_SIZE.value} pixels, batch "
        f"{_BATCH_SIZE.value}, {os.cpu_count()} cores"
    )
    print(*rows, sep="\n")
    if _OUTPUT.value:
        content = {
            "dataset": _DATASET.value,
            "enlarge": _ENLARGE.value,
            "model": _MODEL.value,
            "image_size": _IMAGE_SIZE.value,
            "batch_size": _BATCH_SIZE.value,
            "rand_augment": _RAND_AUGMENT.value,
            "mixup": _MIXUP.value,
            "cutmix": _CUTMIX.value,
            "cores": os.cpu_count(),
            "steps": _STEPS.value,
            "rounds": _ROUNDS.value,
            "results": [dataclasses.asdict(row) for row in rows],
        }
        text = json.dumps(content, indent=2)
        pathlib.Path(_OUTPUT.value).write_text(f"{text}\n")


if __name__ == "__main__":
    program.run(
        _main,
        MANUAL,
        (
            _DATASET,
            _NUM_TRAIN,
            _ENLARGE,
            _IMAGE_SIZE,
            _MODEL,
            _BATCH_SIZE,
            _RAND_AUGMENT,
            _MIXUP,
            _CUTMIX,
            _STEPS,
            _ROUNDS,
            _STREAM_IMAGES,
            _OUTPUT,
        ),
    )
