"""What a device found, against the model that was trained."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from export import device_result
from export.device_result import SplitAgreement
from export.verification import MARGIN
from qgen_tf import errors
from qgen_tf.measures import (
    GeneralizationGap,
    gap_difference,
    generalization_gap,
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
from qgen_tf.study import bundling
from qgen_tf.training import RunDirectory


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
    manifest, trained, file = bundling.kept(run, result.bundle)
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
