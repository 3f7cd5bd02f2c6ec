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

from qgen_tf import data, errors, measures
from qgen_tf.compat import keras
from qgen_tf.quantization import inference_model, quantization_report
from qgen_tf.study import progress
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
    if ALL in settings.names:
        return list(measures.MEASURES)
    known = [*measures.MEASURES, LOSS_RISES]
    for name in settings.names:
        if name not in known:
            raise errors.ConfigError(
                f"measure {name!r} is unknown: choose {ALL!r} or from "
                f"{sorted(known)}."
            )
    return [name for name in settings.names if name != LOSS_RISES]


def _wants_rises(
    run: RunDirectory, settings: ml_collections.ConfigDict
) -> bool:
    asked = {ALL, LOSS_RISES} & {*settings.names}
    return bool(asked) and not is_quantized(run.config)


def measure(
    run_dir: str | os.PathLike[str], settings: ml_collections.ConfigDict
) -> dict[str, Any]:
    """Measures a trained run: gap, noise, and the measures that are asked for.

    Each result is written when it is there: after an interruption the same
    call goes on, and a measure that was taken with the same settings is not
    taken again. A table of what is quantized, layer by layer, is written
    beside.

    Args:
      run_dir: of a finished training.
      settings: the `measures` part of a config.

    Returns:
      What is written to `measures.json`; `failed` maps the measures that this
      run has none of to the reason. A float run that is asked for "loss_rises"
      has `rises`: what rounding all its weights costs, predicted, simulated
      and measured, at several bits.

    Raises:
      UserError: the run is not trained, a setting is wrong, or a measure that
        was asked for by name cannot be taken.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    names = names_of(settings)
    record = _kept(run, json.loads(settings.to_json()))
    missing = [
        name
        for name in names
        if name not in record["measures"] and name not in record["failed"]
    ]
    wants_rises = _wants_rises(run, settings) and "rises" not in record
    if "gap" in record and not missing and not wants_rises:
        return record
    model = load_model(run.path)
    splits = data.load(run.config.dataset)
    chosen = splits.train.take(settings.num_examples or splits.num_train)
    dataset = chosen.batch(_BATCH_SIZE).cache()
    take = _taker(run, model, dataset, settings)
    num_steps = 1 + len(missing) + wants_rises
    with (
        progress.steps(f"{run.label} measure", num_steps) as step,
        measures.shared(),
    ):
        step("gap")
        if "gap" not in record:
            record.update(_gap_and_noise(model, splits, settings.seed))
            with atomic_path(run.path / QUANTIZATION_FILE) as target:
                quantization_report(model).to_csv(target, index=False)
            run.write_json(MEASURES_FILE, record)
        for name in missing:
            step(name)
            try:
                record["measures"][name] = dataclasses.asdict(take(name))
            except errors.UserError as error:
                if ALL not in settings.names:
                    raise
                record["failed"][name] = str(error)
            run.write_json(MEASURES_FILE, record)
        if wants_rises:
            step(LOSS_RISES)
            rises = measures.loss_rises(
                model,
                dataset,
                num_bits=_ROUNDED_BITS,
                layerwise=False,
                seed=settings.seed,
            )
            record["rises"] = [dataclasses.asdict(row) for row in rises]
            run.write_json(MEASURES_FILE, record)
    return record


def is_measured(
    run_dir: str | os.PathLike[str], settings: ml_collections.ConfigDict
) -> bool:
    """Whether `measure` would find nothing to do."""
    run = RunDirectory(run_dir)
    record = _kept(run, json.loads(settings.to_json()))
    taken = {*record["measures"], *record["failed"]}
    return (
        "gap" in record
        and taken >= {*names_of(settings)}
        and ("rises" in record or not _wants_rises(run, settings))
    )


def _kept(run: RunDirectory, wanted: dict[str, Any]) -> dict[str, Any]:
    """Returns what stands in a run and holds for the settings, or nothing."""
    record = {"settings": wanted, "measures": {}, "failed": {}}
    if not (run.path / MEASURES_FILE).exists():
        return record
    found = run.read_json(MEASURES_FILE)
    known = found["settings"]
    if any(known[field] != wanted[field] for field in _COMMON):
        return record
    for kind in ("measures", "failed"):
        found[kind] = {
            name: result
            for name, result in found[kind].items()
            if known.get(name) == wanted.get(name)
        }
    return {**found, "settings": wanted}


def _gap_and_noise(
    model: keras.Model, splits: data.Splits, seed: int
) -> dict[str, Any]:
    predict = measures.predictor(model)
    train, test = (
        measures.evaluate(predict, split.batch(_BATCH_SIZE))
        for split in (splits.train, splits.test)
    )
    gap = measures.generalization_gap(train, test, seed=seed)
    noise = measures.layer_noise(inference_model(model))
    return {
        "train": {"loss": train.loss, "accuracy": train.accuracy},
        "test": {"loss": test.loss, "accuracy": test.accuracy},
        "gap": dataclasses.asdict(gap),
        "noise": [dataclasses.asdict(row) for row in noise],
    }


def _taker(
    run: RunDirectory,
    model: keras.Model,
    dataset: tf.data.Dataset,
    settings: ml_collections.ConfigDict,
) -> Callable[[str], measures.MeasureResult]:
    """Returns a function from the name of a measure to its result."""
    # what a run knows, and some measures ask for
    known: dict[str, Callable[[], Any]] = {
        "initial": functools.cache(lambda: load_model(run.path, initial=True)),
        "num_train": lambda: run.read_json(TRAINED_FILE)["num_train"],
    }

    def take(name: str) -> measures.MeasureResult:
        function = measures.MEASURES[name]
        parameters = inspect.signature(function).parameters
        arguments = {key: known[key]() for key in known if key in parameters}
        return function(
            model,
            dataset,
            point=settings.point,
            seed=settings.seed,
            **{**arguments, **settings.get(name, {})},
        )

    return take
