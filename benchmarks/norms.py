"""What LayerNormalization costs in a file: in integers, and in float."""

from __future__ import annotations

import numpy as np
from absl import flags

from benchmarks.rows import Row, Spread, finish, timed
from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Times three files of one transformer in turns, in one process and on one
thread: the float32 network, the integer network, and the integer network whose
norms may compute in float. Weights are random, images are noise: neither
changes the time.

Example:
  python -m benchmarks.norms --model=cifar_vit --rounds=9
"""

_MODEL = flags.DEFINE_string("model", "cifar_vit", "of benchmarks/zoo.py.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "of each file.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 256, "a round.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_BATCH_SIZE = 64


def _files(images: np.ndarray) -> dict[str, bytes]:
    """Returns the three files."""
    import tensorflow as tf

    import export
    import qgen_tf
    from benchmarks.zoo import ZOO

    _, build = ZOO[_MODEL.value]
    model = build()
    twin = qgen_tf.quantize_model(model, qgen_tf.BitScheme(8, 8))
    batches = tf.data.Dataset.from_tensor_slices(images[:_BATCH_SIZE])
    qgen_tf.calibrate(twin, batches.batch(_BATCH_SIZE))
    network = qgen_tf.inference_model(twin)
    return {
        "float32": export.convert(qgen_tf.inference_model(model)),
        "integers": export.convert(network),
        "float norms": export.convert(network, allow_float=["*norm*"]),
    }


def _main() -> None:
    import export
    from benchmarks.zoo import IMAGE_SIZE, ZOO

    if _MODEL.value not in ZOO:
        raise errors.ConfigError(
            f"--model is {_MODEL.value!r}: choose one of {list(ZOO)}."
        )
    generator = np.random.default_rng(0)
    shape = (_EXAMPLES.value, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = generator.normal(size=shape).astype(np.float32)
    interpreters = {
        name: export.Interpreter(content, num_threads=1)
        for name, content in _files(images).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in interpreters}
    for _ in range(_ROUNDS.value):
        for name, interpreter in interpreters.items():
            cost = timed(lambda run=interpreter: run.predict(images))
            seconds[name].append(cost.cpu)
    print(f"{_MODEL.value}, {IMAGE_SIZE} pixels, one thread")
    milliseconds = {
        name: Spread.of(1e3 * each / len(images) for each in times)
        for name, times in seconds.items()
    }
    for name, spread in milliseconds.items():
        print(f"{name:14}{spread.text():>24} ms an image")
    finish(
        _OUTPUT.value,
        [
            Row(
                f"{_MODEL.value}, {name}",
                "processor time over the float32 file",
                Spread.of_ratios(seconds[name], seconds["float32"]),
                at_most=1.0,
            )
            for name in ("integers", "float norms")
        ],
        model=_MODEL.value,
        ms_per_image={
            name: spread.median for name, spread in milliseconds.items()
        },
    )


if __name__ == "__main__":
    program.run(_main, MANUAL, (_MODEL, _ROUNDS, _EXAMPLES, _OUTPUT))
