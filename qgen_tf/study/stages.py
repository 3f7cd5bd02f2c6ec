"""The stages behind training: measure, export, verify. Each is idempotent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import tensorflow as tf
import tqdm

from export import flatbuffer, tflite
from export.verify import verify
from qgen_tf import data, errors, measures
from qgen_tf.compat import keras
from qgen_tf.quantization import inference_model, quantization_report
from qgen_tf.training import RunDirectory, atomic_path, load_model

MEASURES_FILE = "measures.json"
QUANTIZATION_FILE = "quantization.csv"
VERIFICATION_FILE = "export/verification.json"
MODEL_FILE = "export/model.tflite"

_BATCH_SIZE = 256


def are_done(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a run went through every stage."""
    return all(
        (pathlib.Path(run_dir) / name).exists()
        for name in (MEASURES_FILE, VERIFICATION_FILE)
    )


def measure(
    run_dir: str | os.PathLike[str], settings: ml_collections.ConfigDict
) -> dict[str, Any]:
    """Measures gap, noise and flatness of a trained run.

    A table of what is quantized, layer by layer, is written beside.

    Args:
      run_dir: of a finished training.
      settings: the `measures` part of a config.

    Returns:
      What is written to `measures.json`. A file that was made with the same
      settings is returned as it is.

    Raises:
      UserError: the run is not trained, or a setting is wrong.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    wanted = json.loads(settings.to_json())
    if (run.path / MEASURES_FILE).exists():
        record = run.read_json(MEASURES_FILE)
        if record["settings"] == wanted:
            return record
    for name in settings.names:
        if name not in measures.MEASURES:
            raise errors.ConfigError(
                f"measure {name!r} is unknown: choose from "
                f"{sorted(measures.MEASURES)}."
            )
    model = load_model(run.path)
    network = inference_model(model)
    splits = data.load(run.config.dataset)
    with _steps(f"{run.label} measure", len(settings.names) + 2) as step:
        predict = measures.predictor(model)
        step("training set")
        train = measures.evaluate(predict, splits.train.batch(_BATCH_SIZE))
        step("test set")
        test = measures.evaluate(predict, splits.test.batch(_BATCH_SIZE))
        subset = _subset(splits, settings.num_examples)
        results = {}
        for name in settings.names:
            step(name)
            results[name] = _measure(name, model, subset, settings)
    record = {
        "settings": wanted,
        "train": {"loss": train.loss, "accuracy": train.accuracy},
        "test": {"loss": test.loss, "accuracy": test.accuracy},
        "gap": dataclasses.asdict(
            measures.generalization_gap(train, test, seed=settings.seed)
        ),
        "noise": [
            dataclasses.asdict(row) for row in measures.layer_noise(network)
        ],
        "measures": results,
    }
    with atomic_path(run.path / QUANTIZATION_FILE) as target:
        quantization_report(model).to_csv(target, index=False)
    run.write_json(MEASURES_FILE, record)
    return record


def export(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Exports a trained run to TensorFlow Lite and verifies the file.

    Returns:
      What is written to `export/verification.json`, or what stands there.

    Raises:
      UserError: the run is not trained, cannot be converted, or the file does
        not hold the integers of the network.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    if (run.path / VERIFICATION_FILE).exists():
        return run.read_json(VERIFICATION_FILE)
    model = load_model(run.path)
    network = inference_model(model)
    splits = data.load(run.config.dataset)
    with _steps(f"{run.label} export", 2) as step:
        step("convert")
        content = tflite.convert(network)
        flatbuffer.check(network, content)
        with atomic_path(run.path / MODEL_FILE) as target:
            target.write_bytes(content)
        step("verify")
        verification = verify(
            model,
            network,
            content,
            splits.train.batch(_BATCH_SIZE),
            splits.test.batch(_BATCH_SIZE),
        )
    record = dataclasses.asdict(verification)
    run.write_json(VERIFICATION_FILE, record)
    return record


def _measure(
    name: str,
    model: keras.Model,
    dataset: tf.data.Dataset,
    settings: ml_collections.ConfigDict,
) -> dict[str, Any]:
    result = measures.MEASURES[name](
        model,
        dataset,
        point=settings.point,
        seed=settings.seed,
        **settings[name],
    )
    return dataclasses.asdict(result)


def _subset(splits: data.Splits, num_examples: int) -> tf.data.Dataset:
    """Returns cached batches of the first training examples; 0 takes all."""
    chosen = splits.train.take(num_examples or splits.num_train)
    return chosen.batch(_BATCH_SIZE).cache()


@contextlib.contextmanager
def _steps(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Gives a function that names the step that begins, on a progress bar."""
    with tqdm.tqdm(total=total, desc=title, unit="step") as bar:
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            bar.update(min(begun, 1))
            bar.set_postfix_str(name)
            begun += 1

        yield step
        bar.update()
