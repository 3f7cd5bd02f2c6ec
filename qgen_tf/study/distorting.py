"""Evaluates a run, the model and its file, on corrupted test sets."""

from __future__ import annotations

import functools
import itertools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf

from export.interpreter import Interpreter
from qgen_tf import data, errors, measures
from qgen_tf.data import corrupted_sets, preprocessing
from qgen_tf.data.examples import Examples
from qgen_tf.measures.evaluate import Evaluator
from qgen_tf.study import exporting, progress
from qgen_tf.training import RunDirectory, atomic_path, load_model, lock

CORRUPTIONS_FILE = "corruptions.json"

_BATCH_SIZE = 256
# seconds that another process may take to make a set; a killed one holds
# nothing up
_WAIT = 3600.0
_COMMON = ("num_examples", "seed")


def check(
    settings: ml_collections.ConfigDict,
    dataset_config: ml_collections.ConfigDict,
) -> None:
    """Raises a ConfigError where a setting can be seen to be wrong.

    Args:
      settings: the `corruptions` part of a config.
      dataset_config: the `dataset` part.
    """
    for field in _COMMON:
        if settings[field] < 0:
            raise errors.ConfigError(
                f"corruptions.{field} is {settings[field]}: set it to 0 or "
                "more."
            )
    if settings.kinds and not settings.severities:
        raise errors.ConfigError(
            "corruptions.severities is empty: name some of 1..5, or no kinds."
        )
    for kind, severity in _asked_for(settings):
        corrupted_sets.check(dataset_config, kind, severity)


def distort(
    run_dir: str | os.PathLike[str],
    settings: ml_collections.ConfigDict,
    cache: str | os.PathLike[str],
) -> dict[str, Any]:
    """Evaluates an exported run on the corrupted test sets that are asked for.

    Each result is written when it is there: after an interruption the same
    call goes on. What stands there of the same file and of the same images is
    kept.

    Args:
      run_dir: of a run that is trained, exported and verified.
      settings: the `corruptions` part of a config. Without kinds nothing is
        done.
      cache: folder of the corrupted test sets, which runs of the same data
        set share, also at the same time. One that is missing or damaged is
        made.

    Returns:
      What is written to `corruptions.json`: `settings`, `sha256` of the file
      and `sets`, one row for each: `kind`, `severity`, `source`,
      `num_examples`; `accuracy` [points] and `loss` [nats] of the model as it
      was trained, `file_accuracy` and `file_loss`. {} without kinds.

    Raises:
      UserError: the run has no verified file, or a setting is wrong.
    """
    if not _asked_for(settings):
        return {}
    run = RunDirectory(run_dir)
    run.require_trained()
    if not exporting.is_verified(run.path):
        raise errors.RunDirectoryError(
            f"{run.path} has no {exporting.MODEL_FILE} that is verified: run "
            "qgen-export first, with its default settings."
        )
    record = _kept(run, settings)
    if not _missing(record, settings):
        return record
    check(settings, run.config.dataset)
    with run.locked():
        # another process may have been here in the meantime
        record = _kept(run, settings)
        if missing := _missing(record, settings):
            _evaluate(run, record, missing, pathlib.Path(cache))
    return record


def is_distorted(
    run_dir: str | os.PathLike[str], settings: ml_collections.ConfigDict
) -> bool:
    """Whether `distort` would find nothing to do."""
    if not _asked_for(settings):
        return True
    return not _missing(_kept(RunDirectory(run_dir), settings), settings)


def _asked_for(settings: ml_collections.ConfigDict) -> list[tuple[str, int]]:
    """Returns (kind, severity) of each set."""
    pairs = itertools.product(settings.kinds, settings.severities)
    return list(dict.fromkeys(pairs))


def _kept(
    run: RunDirectory, settings: ml_collections.ConfigDict
) -> dict[str, Any]:
    """Returns a record with the sets that hold still, if there are any."""
    file = run.path / exporting.MODEL_FILE
    digest = None
    if file.exists():
        digest = exporting.digest(file.read_bytes())
    record = {
        "settings": json.loads(settings.to_json()),
        "sha256": digest,
        "sets": [],
    }
    if not (run.path / CORRUPTIONS_FILE).exists():
        return record
    found = run.read_json(CORRUPTIONS_FILE)
    if found["sha256"] == digest and all(
        found["settings"][field] == settings[field] for field in _COMMON
    ):
        record["sets"] = found["sets"]
    return record


def _missing(
    record: dict[str, Any], settings: ml_collections.ConfigDict
) -> list[tuple[str, int]]:
    known = {(row["kind"], row["severity"]) for row in record["sets"]}
    return [pair for pair in _asked_for(settings) if pair not in known]


def _evaluate(
    run: RunDirectory,
    record: dict[str, Any],
    missing: list[tuple[str, int]],
    cache: pathlib.Path,
) -> None:
    """Enters the missing sets into the record, and writes it each time."""
    dataset_config = run.config.dataset
    normalize = preprocessing.normalizer(
        dataset_config.name, dataset_config.normalization
    )
    content = (run.path / exporting.MODEL_FILE).read_bytes()
    sides = {
        "": measures.predictor(load_model(run.path)),
        "file_": Interpreter(content).predict,
    }
    # read only to make a set
    test = functools.cache(lambda: data.load(dataset_config).test_examples)
    common = {field: record["settings"][field] for field in _COMMON}
    with progress.steps(f"{run.label} corruptions", len(missing)) as step:
        for kind, severity in missing:
            step(f"{kind} {severity}")
            wanted = corrupted_sets.CorruptedSet.of(
                dataset_config, kind, severity, **common
            )
            records = _records(cache / wanted.file_name, wanted, test)
            record["sets"].append(
                {
                    "kind": kind,
                    "severity": severity,
                    "source": wanted.source,
                    "num_examples": len(records),
                    **_results(records, normalize, sides),
                }
            )
            run.write_json(CORRUPTIONS_FILE, record)


def _results(
    records: np.ndarray,
    normalize: Callable[[np.ndarray], tf.Tensor],
    sides: dict[str, Callable[[np.ndarray], np.ndarray]],
) -> dict[str, float]:
    """Returns accuracy and loss of each side, named with its prefix."""
    evaluators = {prefix: Evaluator() for prefix in sides}
    for start in range(0, len(records), _BATCH_SIZE):
        batch = records[start : start + _BATCH_SIZE]
        images = normalize(batch["image"]).numpy()
        for prefix, predict in sides.items():
            evaluators[prefix].add(batch["label"], predict(images))
    results = {}
    for prefix, evaluator in evaluators.items():
        evaluation = evaluator.evaluation()
        results[f"{prefix}accuracy"] = evaluation.accuracy
        results[f"{prefix}loss"] = evaluation.loss
    return results


def _records(
    path: pathlib.Path,
    wanted: corrupted_sets.CorruptedSet,
    test: Callable[[], Examples],
) -> np.ndarray:
    """Returns the records of a set, which is made if its file is not whole."""
    records = corrupted_sets.read(path)
    if records is not None:
        return records
    with lock(path.with_suffix(".lock"), wait=_WAIT):
        records = corrupted_sets.read(path)  # made by another meanwhile?
        if records is None:
            with atomic_path(path) as target:
                corrupted_sets.write(wanted.examples(test), target)
            records = corrupted_sets.read(path)
    if records is None:
        raise errors.DataError(
            f"{path} is damaged as soon as it is written: check the disk."
        )
    return records
