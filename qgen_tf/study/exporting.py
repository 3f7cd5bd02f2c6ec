"""Exports a trained run and verifies the file."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from export import flatbuffer, tflite
from export.verify import verify
from qgen_tf import data
from qgen_tf.quantization import inference_model
from qgen_tf.study import progress
from qgen_tf.training import RunDirectory, atomic_path, load_model

VERIFICATION_FILE = "export/verification.json"
MODEL_FILE = "export/model.tflite"

_BATCH_SIZE = 256


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
    with progress.steps(f"{run.label} export", 2) as step:
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


def is_exported(run_dir: str | os.PathLike[str]) -> bool:
    """Whether `export` would find nothing to do."""
    return (RunDirectory(run_dir).path / VERIFICATION_FILE).exists()
