"""Quantizes, trains, exports and verifies every model of the zoo."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from absl import flags

from benchmarks.processes import run_apart
from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Takes each model of benchmarks/zoo.py as it is, quantizes it (W8A8, and W4A8
for the int4 file), trains it for an epoch on scanned digits, exports it,
compares every integer of the file with the network's, runs the file, and
writes a table.

Examples:
  python -m benchmarks.model_zoo --output=docs/models.md
  python -m benchmarks.model_zoo --models=nin,MobileNetV3Small
"""

_OUTPUT = flags.DEFINE_string("output", None, "Markdown file to write.")
_MODELS = flags.DEFINE_list("models", [], "names; all if empty.")
_NUM_TRAIN = 256
_NUM_TEST = 128
_BATCH_SIZE = 32

_DOCUMENT = """\
# Models

Each is quantized as it is, by `qgen_tf.quantize_model(model, scheme)`, at W8A8
and at W4A8, and ends in an integer file. The table comes from

```
{command}
```

with images of {size}x{size} pixels, in [-1, 1] if the model does not scale them
itself, and {classes} classes; weights are random at first, BatchNorm statistics
are those of {num_train} scanned digits, and the W8A8 model is trained on these
for one epoch. *Quantized* are the layers with quantized weights; *left alone*
those that are not known and stay float. *Float ops* are operators of the W8A8
file that compute in float. Every weight, bias and scale of both integer files
is that of the network (the command fails otherwise). *Steps* is the largest
difference of a logit between the W8A8 file and the deployed network in the
arithmetic of XNNPACK on {num_test} other digits, in steps of the output's grid.

{table}
"""


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images, float32 [n, size, size, 3] in [0, 255], and labels."""
    import sklearn.datasets
    import tensorflow as tf

    from benchmarks.zoo import IMAGE_SIZE

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = images[: _NUM_TRAIN + _NUM_TEST].reshape(-1, 8, 8, 1) * (255 / 16)
    images = tf.image.resize(images, (IMAGE_SIZE, IMAGE_SIZE)).numpy()
    return np.repeat(images, 3, axis=-1), labels[: len(images)]


def _twin(model: Any, data: Any, weight_bits: int, *, epochs: int) -> Any:
    """Returns a quantized twin after some epochs."""
    import qgen_tf
    from qgen_tf.compat import keras

    scheme = qgen_tf.BitScheme(weight_bits=weight_bits, activation_bits=8)
    twin = qgen_tf.quantize_model(model, scheme)
    qgen_tf.calibrate(twin, data)
    if epochs:
        twin.compile(
            keras.optimizers.SGD(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        twin.fit(data, epochs=epochs, verbose=0)
    return twin


def _row(name: str) -> dict[str, Any]:
    """Takes one model through everything."""
    import tensorflow as tf

    import export
    import qgen_tf
    from benchmarks.zoo import ZOO
    from export import flatbuffer
    from export.runtime_model import runtime_model
    from qgen_tf.compat import keras
    from qgen_tf.quantization.inference import input_step_size

    keras.utils.set_random_seed(0)
    source, build = ZOO[name]
    model = build()
    images, labels = _digits()
    if not any(isinstance(x, keras.layers.Rescaling) for x in model.layers):
        images = images / 127.5 - 1
    training_set = (images[:_NUM_TRAIN], labels[:_NUM_TRAIN])
    data = tf.data.Dataset.from_tensor_slices(training_set).batch(_BATCH_SIZE)
    # as they are, random weights let a deep network fade to a constant
    qgen_tf.reestimate_norms(model, data)
    twin = _twin(model, data, 8, epochs=1)
    report = qgen_tf.quantization_report(twin)
    network = qgen_tf.inference_model(twin)
    int8 = export.convert(network)
    export.check(network, int8)
    narrow = qgen_tf.inference_model(_twin(model, data, 4, epochs=0))
    int4 = export.convert(narrow, storage="int4")
    export.check(narrow, int4)
    images = images[_NUM_TRAIN:]
    step = input_step_size(network.model.output)
    off = export.Interpreter(int8).predict(images) - runtime_model(
        network
    ).predict(images, batch_size=_BATCH_SIZE, verbose=0)
    kilobytes = [
        f"{len(content) / 1000:,.0f}"
        for content in (
            export.convert(qgen_tf.inference_model(model)),
            int8,
            int4,
        )
    ]
    return {
        "model": name,
        "from": source,
        "parameters": f"{model.count_params():,}",
        "quantized": int(report["weight_bits"].notna().sum()),
        "left alone": int(report["note"].str.startswith("left alone").sum()),
        "float / int8 / int4 file [kB]": " / ".join(kilobytes),
        "float ops": len(flatbuffer.float_operators(flatbuffer.parse(int8))),
        "steps": round(float(np.abs(off).max()) / step),
    }


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[str(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _main() -> None:
    from benchmarks.zoo import IMAGE_SIZE, NUM_CLASSES, ZOO

    names = _MODELS.value or list(ZOO)
    if unknown := sorted(set(names) - set(ZOO)):
        raise errors.ConfigError(
            f"--models has {unknown}: choose from {list(ZOO)}."
        )
    rows = []
    for name in names:
        # TensorFlow keeps what it has converted
        rows.append(run_apart(_row, name))
        print(_markdown(rows[-1:]).splitlines()[-1], flush=True)
    if _OUTPUT.value is None:
        return
    document = _DOCUMENT.format(
        command="python -m benchmarks.model_zoo --output=docs/models.md",
        size=IMAGE_SIZE,
        classes=NUM_CLASSES,
        num_train=_NUM_TRAIN,
        num_test=_NUM_TEST,
        table=_markdown(rows),
    )
    path = pathlib.Path(_OUTPUT.value)
    partial = path.with_suffix(".partial")
    partial.write_text(document)
    os.replace(partial, path)


if __name__ == "__main__":
    program.run(_main, MANUAL, (_OUTPUT, _MODELS))
