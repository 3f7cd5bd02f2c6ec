"""What reading, cropping and augmenting images adds to a training step."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from benchmarks import enlarged_images
from benchmarks.rows import Row, Spread, finish, timed
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
            cost = timed(lambda which=which: turn(contenders[which]))
            seconds[which, :, round_] = cost.wall, cost.cpu
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
    costs = [timed(turn) for _ in range(_STREAM_ROUNDS)]
    seconds = np.array([(cost.wall, cost.cpu) for cost in costs])
    return count * _BATCH_SIZE.value / seconds.T


def _main() -> None:
    dataset = program.require(_DATASET)
    with tempfile.TemporaryDirectory() as folder:
        if _ENLARGE.value:
            dataset = enlarged_images.write(dataset, folder, _ENLARGE.value)
        splits = _splits(dataset)
        stream = dict(zip(("wall", "cpu"), rates(splits), strict=True))
        (real_wall, real_cpu), (cached_wall, cached_cpu) = steps(splits)
    print(
        f"{_MODEL.value}, {_IMAGE_SIZE.value} pixels, batch "
        f"{_BATCH_SIZE.value}, {os.cpu_count()} cores"
    )
    images_a_second = {kind: Spread.of(rate) for kind, rate in stream.items()}
    seconds = {"real": Spread.of(real_wall), "cached": Spread.of(cached_wall)}
    for kind, rate in images_a_second.items():
        print(f"images a second of the stream, {kind}: {rate.text(0)}")
    for kind, spread in seconds.items():
        print(f"seconds a step, {kind}: {spread.text(3)}")
    what = f"step of {_MODEL.value} on real images"
    finish(
        _OUTPUT.value,
        [
            Row(
                what,
                f"{kind} over a batch in memory",
                Spread.of_ratios(real, cached),
            )
            for kind, real, cached in (
                ("wall time", real_wall, cached_wall),
                ("processor time", real_cpu, cached_cpu),
            )
        ],
        dataset=_DATASET.value,
        enlarge=_ENLARGE.value,
        model=_MODEL.value,
        image_size=_IMAGE_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        rand_augment=_RAND_AUGMENT.value,
        cores=os.cpu_count(),
        steps=_STEPS.value,
        rounds=_ROUNDS.value,
        images_a_second={
            kind: rate.median for kind, rate in images_a_second.items()
        },
        seconds_a_step={
            kind: spread.median for kind, spread in seconds.items()
        },
    )


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
