"""Records for TensorBoard's HParams dashboard."""

from __future__ import annotations

import math
import os
import pathlib
import shutil
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
import tensorflow as tf
from tensorboard.plugins.hparams import api as hp

from qgen_tf.study import schema
from qgen_tf.study.statistics import neighbours
from qgen_tf.training import atomic_path

FOLDER = "hparams"

_OUTCOMES = (
    "gap",
    "loss_gap",
    "train_accuracy",
    "test_accuracy",
    "train_loss",
    "test_loss",
    "file_gap",
    "file_test_accuracy",
    "file_test_loss",
    "kilobytes",
    "latency_ms",
)


def write(frame: pd.DataFrame, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes records for `tensorboard --logdir`, one run a model.

    Hyper-parameters are the bits and what varies among the records; metrics
    are accuracies, losses, gaps and measures. What was written before is
    replaced as a whole.

    Args:
      frame: records.
      folder: where the folder `hparams` goes.

    Returns:
      The path of that folder.

    Raises:
      DataError: the records have no column `run` or `bits`.
      RunDirectoryError: nothing may be written there.
    """
    neighbours.require_columns(frame, ["run", "bits"])
    axes = [n for n in neighbours.varied(frame) if n != "bits"] + ["bits"]
    metrics = [name for name in (*_OUTCOMES, *schema.MEASURES) if name in frame]
    path = pathlib.Path(folder) / FOLDER
    with atomic_path(path) as target:
        with tf.summary.create_file_writer(str(target)).as_default():
            hp.hparams_config(
                hparams=[_hyperparameter(frame, name) for name in axes],
                metrics=[_metric(name) for name in metrics],
            )
        for row in frame.to_dict("records"):
            _write_run(target / row["run"], row, axes, metrics)
        shutil.rmtree(path, ignore_errors=True)
    return path


def _write_run(
    folder: pathlib.Path,
    row: Mapping[Hashable, Any],
    axes: Sequence[str],
    metrics: Sequence[str],
) -> None:
    known = {name: row[name] for name in axes if pd.notna(row[name])}
    with tf.summary.create_file_writer(str(folder)).as_default():
        hp.hparams(known, trial_id=row["run"])
        for name in metrics:
            if math.isfinite(row[name]):
                tf.summary.scalar(name, row[name], step=0)


def _hyperparameter(frame: pd.DataFrame, name: str) -> hp.HParam:
    values = sorted(frame[name].dropna().unique().tolist())
    return hp.HParam(name, hp.Discrete(values), name, _meaning(name))


def _metric(name: str) -> hp.Metric:
    return hp.Metric(name, display_name=name, description=_meaning(name))


def _meaning(name: str) -> str:
    column = schema.describe(name)
    return column.meaning + (f" [{column.unit}]" if column.unit else "")
