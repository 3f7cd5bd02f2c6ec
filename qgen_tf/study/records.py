"""Tables from run directories."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import pandas as pd

from qgen_tf import errors
from qgen_tf.study import exporting, measuring
from qgen_tf.training import TRAINED_FILE, RunDirectory, is_quantized


def record(run: RunDirectory) -> dict[str, Any]:
    """Returns one flat row of a run that went through every stage.

    Accuracies and their gaps are in points, losses in nats; a gap is train
    minus test. Intervals are bootstrap intervals at 95 %.
    """
    facts = run.read_json(TRAINED_FILE)
    measured = run.read_json(measuring.MEASURES_FILE)
    verified = run.read_json(exporting.VERIFICATION_FILE)
    gap, difference = measured["gap"], verified["difference"]
    row = {
        "model": run.label,
        "run": run.path.name,
        "seed": run.config.seed,
        "parameters": facts["parameters"],
        "train_accuracy": measured["train"]["accuracy"],
        "test_accuracy": measured["test"]["accuracy"],
        "train_loss": measured["train"]["loss"],
        "test_loss": measured["test"]["loss"],
    }
    for name, interval in (
        ("accuracy_gap", gap["accuracy"]),
        ("loss_gap", gap["loss"]),
        ("tflite_accuracy_gap", verified["tflite_gap"]["accuracy"]),
        ("tflite_loss_gap", verified["tflite_gap"]["loss"]),
        ("gap_difference", difference["accuracy"]),
        ("loss_gap_difference", difference["loss"]),
    ):
        row[name] = interval["value"]
        row[f"{name}_low"] = interval["low"]
        row[f"{name}_high"] = interval["high"]
    for name, result in measured["measures"].items():
        row[name] = result["value"]
        row[f"{name}_standard_error"] = result["standard_error"]
        row[f"{name}_converged"] = result["converged"]
    row["noise_power"] = sum(
        layer["noise_power"] for layer in measured["noise"]
    )
    row["predicted_noise_power"] = sum(
        layer["predicted_noise_power"] for layer in measured["noise"]
    )
    row["verdict"] = verified["verdict"]
    row["margin"] = verified["equivalence"]["margin"]
    row["equivalence_p_value"] = verified["equivalence"]["p_value"]
    for split in ("train", "test"):
        row[f"mcnemar_p_value_{split}"] = verified[split]["mcnemar"]["p_value"]
    row["argmax_agreement"] = verified["test"]["argmax_agreement"]
    row["max_steps"] = max(
        verified[split]["max_steps"] for split in ("train", "test")
    )
    row["max_steps_deployed"] = max(
        verified[split]["max_steps_deployed"] for split in ("train", "test")
    )
    row["kilobytes"] = verified["num_bytes"] / 1000.0
    return row


def load(runs: Iterable[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each run; see `record`."""
    return pd.DataFrame([record(run) for run in runs])


def noise(runs: Iterable[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each run and quantized layer; see `LayerNoise`."""
    return pd.DataFrame(
        [
            {"model": run.label, **layer}
            for run in runs
            for layer in run.read_json(measuring.MEASURES_FILE)["noise"]
        ]
    )


def quantization(runs: Iterable[RunDirectory]) -> pd.DataFrame:
    """Returns one row for each quantized run and layer.

    The columns are those of `qgen_tf.quantization_report`.
    """
    frames = [
        pd.read_csv(run.path / measuring.QUANTIZATION_FILE).assign(
            model=run.label
        )
        for run in runs
        if is_quantized(run.config)
    ]
    return pd.concat(frames) if frames else pd.DataFrame()


def find(workdir: str | os.PathLike[str], name: str = "") -> list[RunDirectory]:
    """Returns the runs below `workdir` that went through every stage.

    Args:
      workdir: folder of run directories.
      name: of their config; "" takes all.

    Raises:
      RunDirectoryError: there is none.
    """
    folder = pathlib.Path(workdir)
    runs = [
        RunDirectory(path.parent)
        for path in sorted(folder.glob("*/config.json"))
    ]
    done = [
        run
        for run in runs
        if name in ("", run.config.name)
        and (run.path / measuring.MEASURES_FILE).exists()
        and exporting.is_readable(run.path)
    ]
    if not done:
        raise errors.RunDirectoryError(
            f"{folder} has no run{f' of {name!r}' if name else ''} that is "
            "trained, measured and exported: run qgen-sweep, or qgen-measure "
            "and qgen-export on each run."
        )
    return done
