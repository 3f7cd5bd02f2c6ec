"""Bundles of trained runs for devices, and what came back from there."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from export import bundle as device_bundle
from export import device_result, run_on_device
from export.device_result import SplitAgreement
from export.verification import MARGIN
from qgen_tf import data, errors
from qgen_tf.measures import (
    Evaluation,
    GeneralizationGap,
    evaluate,
    gap_difference,
    generalization_gap,
    predictor,
)
from qgen_tf.measures.equivalence import (
    Equivalence,
    McNemar,
    accuracy_equivalence,
    equivalence,
    mcnemar,
    require_margin,
    verdict,
)
from qgen_tf.study import exporting, progress
from qgen_tf.training import RunDirectory, atomic_path, load_model

Evaluations: TypeAlias = tuple[Evaluation, Evaluation]  # train, test

# in a run directory; has a folder for each bundle, named by its identity
BUNDLES_FOLDER = "export/bundles"

_EVALUATIONS_FILE = "evaluations.npz"
_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class DeviceSplit:
    """The file on the device, on one data set.

    Attributes:
      accuracy: in points.
      loss: in nats.
      agreement: of its outputs with those on the training machine.
      equivalence: of the accuracy with that of the trained model.
      mcnemar: of the file on the device against the trained model.
    """

    accuracy: float
    loss: float
    agreement: SplitAgreement
    equivalence: Equivalence
    mcnemar: McNemar


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The file on the device against the model that was trained.

    Attributes:
      verdict: "same", "different" or "cannot tell"; see `measures.equivalence`.
      equivalence: test of the gaps of device and trained model.
      keras_gap: gap of the trained model.
      tflite_gap: gap of the file on the training machine.
      device_gap: gap of the file on the device.
      difference: device minus trained model, paired example by example.
      file_difference: device minus training machine, of the file.
      train: the device on the training examples.
      test: on the test examples.
      is_float: whether outputs are floats, not integers.
      storage: of weights.
      kernels: of the runtime on the device.
      num_threads: of the runtime on the device.
      latency_ms: "p50" and "p90" of one call with one example, "num_runs".
      peak_memory_mb: on the device; None if unknown.
      machine: what the device is.
      bundle: identity of the bundle.
    """

    verdict: str
    equivalence: Equivalence
    keras_gap: GeneralizationGap
    tflite_gap: GeneralizationGap
    device_gap: GeneralizationGap
    difference: GeneralizationGap
    file_difference: GeneralizationGap
    train: DeviceSplit
    test: DeviceSplit
    is_float: bool
    storage: str
    kernels: str
    num_threads: int
    latency_ms: dict[str, float]
    peak_memory_mb: float | None
    machine: dict[str, str | int]
    bundle: str


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
    run directory, for `compare`.

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
        examples, or the folder cannot be written.
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
    with progress.steps(f"{run.label} bundle", 3) as step:
        step("export")
        content = exporting.export(run.path, settings).read_bytes()
        step("trained model")
        predict = predictor(load_model(run.path))
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


def compare(
    run_dir: str | os.PathLike[str],
    result_file: str | os.PathLike[str],
    *,
    margin: float = MARGIN,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares what a device found with what the trained model does.

    Args:
      run_dir: of the run that the bundle was made of.
      result_file: device_result.json, from the device.
      margin: largest difference of two accuracy gaps that counts as none, in
        points.
      seed: of the bootstrap.

    Returns:
      A `Comparison` as JSON types.

    Raises:
      UserError: the result is damaged, or of a bundle of another run.
    """
    require_margin(margin)
    run = RunDirectory(run_dir)
    result = device_result.read(result_file)
    device = result.evaluations
    manifest, trained, file = _kept(run, result)
    for here, there in zip(device, file, strict=True):
        if len(here.losses) != len(there.losses):
            raise errors.ExportError(
                f"{result_file} has {len(here.losses)} examples where the "
                f"bundle has {len(there.losses)}: run the bundle again."
            )
    difference = gap_difference(device, trained, seed=seed)
    tested = equivalence(device, trained, margin=margin)
    train, test = (
        DeviceSplit(
            accuracy=here.accuracy,
            loss=here.loss,
            agreement=agreement,
            equivalence=accuracy_equivalence(here, there, margin=margin),
            mcnemar=mcnemar(here, there),
        )
        for here, there, agreement in zip(
            device, trained, result.agreements, strict=True
        )
    )
    comparison = Comparison(
        verdict=verdict(
            tested, difference.accuracy, [train.equivalence, test.equivalence]
        ),
        equivalence=tested,
        keras_gap=generalization_gap(*trained, seed=seed),
        tflite_gap=generalization_gap(*file, seed=seed),
        device_gap=generalization_gap(*device, seed=seed),
        difference=difference,
        file_difference=gap_difference(device, file, seed=seed),
        train=train,
        test=test,
        is_float=manifest["is_float"],
        storage=manifest["storage"],
        kernels=result.kernels,
        num_threads=result.num_threads,
        latency_ms=result.latency_ms,
        peak_memory_mb=result.peak_memory_mb,
        machine=result.machine,
        bundle=result.bundle,
    )
    return dataclasses.asdict(comparison)


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


def _kept(
    run: RunDirectory, result: device_result.DeviceResult
) -> tuple[dict[str, Any], Evaluations, Evaluations]:
    """Returns manifest and evaluations of trained model and file."""
    folder = run.path / BUNDLES_FOLDER / result.bundle
    if not folder.is_dir():
        raise errors.ExportError(
            f"the device's result is of bundle {result.bundle[:12]}, which was "
            f"not made of {run.path}: name the run that it was made of."
        )
    manifest = run.read_json(
        f"{BUNDLES_FOLDER}/{result.bundle}/{run_on_device.MANIFEST_FILE}"
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
