"""Bundles of trained runs for devices, and what is kept of them in a run."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from export import bundle as device_bundle
from export import run_on_device
from qgen_tf import data, errors
from qgen_tf.measures import Evaluation, evaluate, predictor
from qgen_tf.quantization import inference_model
from qgen_tf.study import exporting, progress
from qgen_tf.training import RunDirectory, atomic_path, load_model

Evaluations: TypeAlias = tuple[Evaluation, Evaluation]  # train, test

# in a run directory; has a folder for each bundle, named by its identity
BUNDLES_FOLDER = "export/bundles"

_EVALUATIONS_FILE = "evaluations.npz"
_BATCH_SIZE = 256


@errors.typed
def bundle(
    run_dir: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    storage: str = "int8",
    num_examples: int = 0,
    allow_float: Sequence[str] = (),
) -> pathlib.Path:
    """Makes the bundle of a trained run, which is exported if it is not yet.

    What the trained model and the file make of each example is kept in the
    run directory, for `comparison.compare`.

    Args:
      run_dir: of a trained run.
      folder: to be made; an archive of it is made beside it.
      storage: of weights; see `export.convert`. Those of 2 bits are stored in
        8 on the device before the model runs, which has few operators for 2.
      num_examples: of each split, the first ones; 0 for all.
      allow_float: patterns of the names of layers that may compute in float.

    Returns:
      The path of the archive.

    Raises:
      UserError: the run is not trained or cannot be converted, there are fewer
        examples, another process exports it, or the folder cannot be written.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    splits = data.load(run.config.dataset)
    chosen = {
        "train": _first(splits.train, num_examples, "training"),
        "test": _first(splits.test, num_examples, "test"),
    }
    settings = exporting.Settings(
        storage=storage, allow_float=tuple(allow_float)
    )
    with (
        exporting.locked(run),
        progress.steps(f"{run.label} bundle", 3) as step,
    ):
        step("export")
        model = load_model(run.path)
        content = exporting.file_content(run, inference_model(model), settings)
        step("trained model")
        predict = predictor(model)
        trained = {
            split: evaluate(predict, dataset.batch(_BATCH_SIZE))
            for split, dataset in chosen.items()
        }
        step("file")
        written = device_bundle.write(
            folder,
            content,
            chosen,
            facts={
                "run": run.path.name,
                "label": run.label,
                "storage": storage,
            },
            expand_low_bits=settings.expand_low_bits,
        )
        _keep(run, written, trained)
    return written.archive


def _first(
    dataset: tf.data.Dataset, num_examples: int, split: str
) -> tf.data.Dataset:
    """Returns the first examples of a split, or all."""
    available = int(dataset.cardinality())
    if not 0 <= num_examples <= available:
        raise errors.ConfigError(
            f"num_examples is {num_examples}, but there are {available} "
            f"{split} examples: set it to 0 for all of them, or to at most "
            "that."
        )
    return dataset.take(num_examples or available)


def _keep(
    run: RunDirectory,
    written: device_bundle.Bundle,
    trained: dict[str, Evaluation],
) -> None:
    """Keeps how trained model and file did on the examples of a bundle."""
    folder = f"{BUNDLES_FOLDER}/{written.identity}"
    arrays = {
        f"{side}_{split}_{name}": values
        for side, evaluations in (
            ("trained", trained),
            ("file", written.evaluations),
        )
        for split, evaluation in evaluations.items()
        for name, values in vars(evaluation).items()
    }
    with atomic_path(run.path / folder / _EVALUATIONS_FILE) as target:
        np.savez(target, **arrays)
    run.write_json(f"{folder}/{run_on_device.MANIFEST_FILE}", written.manifest)


def kept(
    run: RunDirectory, identity: str
) -> tuple[dict[str, Any], Evaluations, Evaluations]:
    """Returns manifest, and evaluations of trained model and file.

    Args:
      run: that the bundle was made of.
      identity: of the bundle.

    Raises:
      UserError: there is no such bundle of the run, or what is kept of it is
        damaged.
    """
    folder = run.path / BUNDLES_FOLDER / identity
    if not folder.is_dir():
        raise errors.ExportError(
            f"the device's result is of bundle {identity[:12]}, which was "
            f"not made of {run.path}: name the run that it was made of."
        )
    manifest = run.read_json(
        f"{BUNDLES_FOLDER}/{identity}/{run_on_device.MANIFEST_FILE}"
    )
    path = folder / _EVALUATIONS_FILE
    try:
        _require_stored(path)
        with path.open("rb") as content, np.load(content) as arrays:
            (train, test), file = (
                [
                    Evaluation(
                        losses=arrays[f"{side}_{split}_losses"],
                        correct=arrays[f"{side}_{split}_correct"],
                    )
                    for split in run_on_device.SPLITS
                ]
                for side in ("trained", "file")
            )
    except (
        EOFError,
        KeyError,
        MemoryError,
        OSError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise errors.RunDirectoryError(
            f"{path} is damaged or missing ({error}): make the bundle again."
        ) from error
    return manifest, (train, test), (file[0], file[1])


def _require_stored(path: pathlib.Path) -> None:
    """Raises a ValueError for arrays that would grow as they are read."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} is compressed")
