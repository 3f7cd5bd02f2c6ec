"""Accuracy of a float model, its twins, and tfmot's default, over seeds."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from absl import flags

from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Trains a float model and its twins for several seeds, and, as a baseline,
tfmot's default 8-bit model. Every one of them starts from the float model of
its seed and is trained with the same data, epochs, optimizer, learning rates
and teacher. Prints test accuracies of the trained models and of their files,
and their differences to float, as mean and standard deviation over seeds. What
is done already is not done again.

Examples:
  python -m benchmarks.qat_accuracy --config=cifar10_resnet20 --num_seeds=3
"""

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir()
_NUM_SEEDS = flags.DEFINE_integer(
    "num_seeds", 3, "seeds 0, 1, ... are run.", lower_bound=1
)
_BATCH_SIZE = 256
_BASELINE = "tfmot w8a8"


def _accuracies(predict: Any, splits: Any) -> dict[str, float]:
    from qgen_tf.measures import evaluate

    return {
        f"{name}_accuracy": evaluate(predict, split.batch(_BATCH_SIZE)).accuracy
        for name, split in (("train", splits.train), ("test", splits.test))
    }


def _measured(run: Any, splits: Any) -> dict[str, Any]:
    """Returns the accuracies of a run and of its file."""
    import export
    from qgen_tf import measures, training
    from qgen_tf.quantization import inference_model

    model = training.load_model(run.path)
    network = inference_model(model)
    content = export.convert(network)
    export.check(network, content)
    file = measures.evaluate(
        export.Interpreter(content), splits.test.batch(_BATCH_SIZE)
    )
    return {
        "model": run.label,
        **_accuracies(measures.predictor(model), splits),
        "file_test_accuracy": file.accuracy,
    }


def _baseline(config: Any, float_run: Any, splits: Any) -> dict[str, Any]:
    """Trains tfmot's default 8-bit model as a twin is trained."""
    import tensorflow_model_optimization as tfmot

    from qgen_tf import measures, training
    from qgen_tf.compat import keras
    from qgen_tf.training import optimizers

    keras.utils.set_random_seed(config.seed)
    teacher = training.load_model(float_run.path)
    model = tfmot.quantization.keras.quantize_model(teacher)
    settings, stage = config.training, config.quantization
    student = training.QATModel(
        model,
        teacher=teacher,
        distillation=stage.distillation,
        temperature=stage.temperature,
    )
    steps = splits.steps_per_epoch(settings.batch_size)
    optimizer = optimizers.build(
        settings,
        learning_rate=stage.learning_rate,
        steps=stage.epochs * steps,
        warmup_steps=round(settings.warmup_epochs * steps),
    )
    student.compile(optimizer, keras.losses.CategoricalCrossentropy(True))
    stream = splits.training_stream(
        batch_size=settings.batch_size,
        seed=config.seed,
        epochs=stage.epochs,
        first_epoch=0,
    )
    student.fit(stream, epochs=stage.epochs, steps_per_epoch=steps, verbose=2)
    return {
        "model": _BASELINE,
        **_accuracies(measures.predictor(model), splits),
        "file_test_accuracy": None,
    }


def _rows(config: Any, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns one row for each model of one seed."""
    from qgen_tf import data, training
    from qgen_tf.study import design

    splits = data.load(config.dataset)
    runs = [
        training.train(trial.config, workdir)
        for trial in design.trials(config, workdir)
    ]
    rows = [
        _done_once(run.path / "accuracy.json", _measured, run, splits)
        for run in runs
    ]
    path = runs[0].path / "tfmot.json"
    rows.append(_done_once(path, _baseline, config, runs[0], splits))
    return [{"seed": config.seed, **row} for row in rows]


def _done_once(path: pathlib.Path, function: Any, *args: Any) -> dict[str, Any]:
    """Returns what `function` returned, from a file if it did already."""
    from qgen_tf.training import atomic_path

    if not path.exists():
        content = json.dumps(function(*args), allow_nan=False)
        with atomic_path(path) as target:
            target.write_text(content)
    return json.loads(path.read_text())


def summary(rows: list[dict[str, Any]]) -> str:
    """Returns mean and standard deviation over seeds, in points."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    floats = frame[frame["model"] == "float"].set_index("seed")
    frame["minus_float"] = frame["test_accuracy"] - frame["seed"].map(
        floats["test_accuracy"]
    )
    columns = [
        "train_accuracy",
        "test_accuracy",
        "file_test_accuracy",
        "minus_float",
    ]
    groups = frame.groupby("model", sort=False)[columns]
    text = groups.mean().map("{:.2f}".format)
    if frame["seed"].nunique() > 1:
        text += groups.std().map(" ± {:.2f}".format)
    return text.to_string()


def _main() -> None:
    config = program.require_config(_CONFIG)
    if config.training.label_smoothing:
        raise errors.ConfigError(
            "training.label_smoothing is not 0: the baseline is trained "
            "without."
        )
    from qgen_tf import training

    workdir = pathlib.Path(_WORKDIR.value)
    rows = []
    for seed in range(_NUM_SEEDS.value):
        config.seed = seed
        training.make_deterministic(seed)
        rows += _rows(config, workdir)
        print(summary(rows), flush=True)
    with training.atomic_path(workdir / f"{config.name}-accuracy.json") as path:
        path.write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    program.run(_main, MANUAL, (_CONFIG, _WORKDIR, _NUM_SEEDS))
