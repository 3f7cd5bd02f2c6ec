"""Measures a trained run, one measure after the other."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
from collections.abc import Callable
from typing import Any

import ml_collections
import tensorflow as tf

from export.file_network import file_network
from qgen_tf import data, errors, measures
from qgen_tf.compat import keras
from qgen_tf.measures.perturbations import deployed_network
from qgen_tf.measures.rounding import NoGridError
from qgen_tf.quantization import (
    InferenceModel,
    inference_model,
    quantization_report,
)
from qgen_tf.study import progress
from qgen_tf.study.measured_file import MeasuredFile
from qgen_tf.training import (
    TRAINED_FILE,
    RunDirectory,
    atomic_path,
    is_quantized,
    load_model,
)

MEASURES_FILE = "measures.json"
QUANTIZATION_FILE = "quantization.csv"

ALL = "all"
LOSS_RISES = "loss_rises"

_ROUNDED_BITS = (8, 6, 4, 3, 2)

_BATCH_SIZE = 256
_COMMON = ("num_examples", "seed", "point")


def names_of(settings: ml_collections.ConfigDict) -> list[str]:
    """Returns the measures that are asked for; "all" stands for each of them.

    Raises:
      ConfigError: one is unknown.
    """
    known = [*measures.MEASURES, LOSS_RISES]
    if ALL in settings.names:
        return known
    for name in settings.names:
        if name not in known:
            raise errors.ConfigError(
                f"measure {name!r} is unknown: choose {ALL!r} or from "
                f"{sorted(known)}."
            )
    return list(settings.names)


def measure(
    run_dir: str | os.PathLike[str],
    settings: ml_collections.ConfigDict,
    *,
    tflite: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Measures a trained run: gap, noise, and the measures that are asked for.

    Each result is written when it is there: after an interruption the same
    call goes on, and a measure that was taken with the same settings is not
    taken again. A table of what is quantized, layer by layer, is written
    beside.

    Args:
      run_dir: of a finished training.
      settings: the `measures` part of a config.
      tflite: a TensorFlow Lite file of the run, whose weights are measured in
        the place of those that were trained.

    Returns:
      What is written to `measures.json`, or to `measures-<stem of the
      file>.json`, which has `source`: name and SHA-256 of the file. `failed`
      maps the measures that this run has none of to the reason. A float run
      that is asked for "loss_rises" has `rises`: what rounding all its weights
      costs, predicted, simulated and measured, at several bits.

    Raises:
      UserError: the run is not trained, a setting is wrong, the file does not
        fit the run, or a measure that was asked for by name cannot be taken.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    names = names_of(settings)
    target, wanted, file = MEASURES_FILE, _wanted(settings), None
    if tflite is not None:
        file = MeasuredFile.read(tflite, point=settings.point)
        target, wanted["source"] = file.record_file, file.source
    record = _kept(run, target, wanted)
    if "gap" in record and not _missing(run, record, names):
        return record
    with run.locked():
        # another process may have measured in the meantime
        record = _kept(run, target, wanted)
        _complete(run, record, target, settings, file)
    return record


def _complete(
    run: RunDirectory,
    record: dict[str, Any],
    target: str,
    settings: ml_collections.ConfigDict,
    file: MeasuredFile | None,
) -> None:
    """Takes what a record lacks, and writes it each time."""
    missing = _missing(run, record, names_of(settings))
    model = measured = load_model(run.path)
    if file is not None:
        measured = file_network(inference_model(model), file.content)
    splits = data.load(run.config.dataset)
    chosen = splits.train.take(settings.num_examples or splits.num_train)
    dataset = chosen.batch(_BATCH_SIZE).cache()
    take = _taker(run, measured, dataset, settings, record)
    with (
        progress.steps(f"{run.label} measure", 1 + len(missing)) as step,
        measures.shared(),
    ):
        step("gap")
        if "gap" not in record:
            record.update(_gap_and_noise(measured, splits, settings.seed))
            if measured is model:
                with atomic_path(run.path / QUANTIZATION_FILE) as path:
                    quantization_report(model).to_csv(path, index=False)
            run.write_json(target, record)
        for name in missing:
            step(name)
            try:
                take(name)
            except NoGridError as error:
                # a sweep asks its float models, too
                record["failed"][name] = str(error)
            except errors.UserError as error:
                if ALL not in settings.names:
                    raise
                record["failed"][name] = str(error)
            run.write_json(target, record)


def is_measured(
    run_dir: str | os.PathLike[str], settings: ml_collections.ConfigDict
) -> bool:
    """Whether `measure` of the trained weights would find nothing to do."""
    run = RunDirectory(run_dir)
    record = _kept(run, MEASURES_FILE, _wanted(settings))
    return "gap" in record and not _missing(run, record, names_of(settings))


def _wanted(settings: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what a record says of what it was made of."""
    return {"settings": json.loads(settings.to_json())}


def _kept(
    run: RunDirectory, target: str, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Returns what stands in a file of a run and holds still, or nothing."""
    empty = {**wanted, "measures": {}, "failed": {}}
    if not (run.path / target).exists():
        return empty
    found = run.read_json(target)
    known, settings = found["settings"], wanted["settings"]
    if any(known[field] != settings[field] for field in _COMMON):
        return empty
    if found.get("source") != wanted.get("source"):
        return empty
    for kind in ("measures", "failed"):
        found[kind] = {
            name: result
            for name, result in found[kind].items()
            if known.get(name) == settings.get(name)
        }
    return {**found, **wanted}


def _missing(
    run: RunDirectory, record: dict[str, Any], names: list[str]
) -> list[str]:
    """Returns the measures that a record lacks; a twin has no rises."""
    taken = {*record["measures"], *record["failed"]}
    if "rises" in record or is_quantized(run.config):
        taken.add(LOSS_RISES)
    return [name for name in names if name not in taken]


def _gap_and_noise(
    measured: keras.Model | InferenceModel, splits: data.Splits, seed: int
) -> dict[str, Any]:
    network = deployed_network(measured)
    predict = measures.predictor(
        network.model if measured is network else measured
    )
    train, test = (
        measures.evaluate(predict, split.batch(_BATCH_SIZE))
        for split in (splits.train, splits.test)
    )
    gap = measures.generalization_gap(train, test, seed=seed)
    return {
        "train": {"loss": train.loss, "accuracy": train.accuracy},
        "test": {"loss": test.loss, "accuracy": test.accuracy},
        "gap": dataclasses.asdict(gap),
        "noise": [
            dataclasses.asdict(row) for row in measures.layer_noise(network)
        ],
    }


def _taker(
    run: RunDirectory,
    measured: keras.Model | InferenceModel,
    dataset: tf.data.Dataset,
    settings: ml_collections.ConfigDict,
    record: dict[str, Any],
) -> Callable[[str], None]:
    """Returns a function that takes a measure and enters it into the record."""
    # what a run knows, and some measures ask for
    known: dict[str, Callable[[], Any]] = {
        "initial": functools.cache(lambda: load_model(run.path, initial=True)),
        "num_train": lambda: run.read_json(TRAINED_FILE)["num_train"],
    }

    def take(name: str) -> None:
        if name == LOSS_RISES:
            rises = measures.loss_rises(
                measured,
                dataset,
                num_bits=_ROUNDED_BITS,
                layerwise=False,
                seed=settings.seed,
            )
            record["rises"] = [dataclasses.asdict(row) for row in rises]
            return
        function = measures.MEASURES[name]
        parameters = inspect.signature(function).parameters
        arguments = {key: known[key]() for key in known if key in parameters}
        result = function(
            measured,
            dataset,
            point=settings.point,
            seed=settings.seed,
            **{**arguments, **settings.get(name, {})},
        )
        record["measures"][name] = dataclasses.asdict(result)

    return take
