"""One record: what is known of a model, in a row."""

from __future__ import annotations

from typing import Any

import ml_collections

from qgen_tf.study import exporting, measuring
from qgen_tf.study.distorting import CORRUPTIONS_FILE
from qgen_tf.study.trial import SECONDS_FILE
from qgen_tf.training import (
    TRAINED_FILE,
    RunDirectory,
    float_config,
    is_quantized,
    label,
    run_path,
)

_SPLITS = ("train", "test")


def record(run: RunDirectory) -> dict[str, Any]:
    """Returns one flat row of a run that went through every stage.

    `schema.describe` says what each column is. Corrupted test sets and times
    are there if the run has them.

    Raises:
      RunDirectoryError: a file of the run is missing or damaged.
    """
    row = _identity(run)
    with run.reading(measuring.MEASURES_FILE) as measured:
        row |= {
            **_outcomes(measured, measured["gap"]),
            **_measures(measured),
        }
    with run.reading(exporting.VERIFICATION_FILE) as verified:
        row |= {
            **_outcomes(verified, verified["tflite_gap"], "file_"),
            **_verification(verified),
        }
    return {
        **row,
        **_corruptions(run, measured, verified),
        **_seconds(run),
    }


def _identity(run: RunDirectory) -> dict[str, Any]:
    config = run.config
    training, bits = config.training, config.quantization
    with run.reading("config.json") as content:
        # as it was written: fields that are newer would change the name
        written = ml_collections.ConfigDict(content)
        twin_of = run_path("", float_config(written)).name
    return {
        "run": run.path.name,
        "name": config.name,
        "twin_of": twin_of,
        "dataset": config.dataset.name,
        "model": config.model.name,
        **{
            name: value
            for name, value in config.model.items()
            if name != "name" and isinstance(value, (int, float, str))
        },
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "batch_size": training.batch_size,
        "optimizer": training.optimizer,
        "augmentation": augmentation_label(config.dataset),
        "seed": config.seed,
        "stop_at_loss": training.stop_at_loss,
        **_facts(run),
        "quantizer": bits.quantizer if is_quantized(config) else None,
        "bits": label(config),
        "weight_bits": bits.weight_bits,
        "activation_bits": bits.activation_bits,
    }


def _facts(run: RunDirectory) -> dict[str, Any]:
    names = ("num_train", "num_test", "parameters", "epochs")
    with run.reading(TRAINED_FILE) as facts:
        return {
            **{name: facts[name] for name in names},
            # runs of earlier versions do not say
            "stopped_at_loss": facts.get("stopped_at_loss"),
        }


def augmentation_label(dataset: ml_collections.ConfigDict) -> str:
    """Returns what is done to training images, "flip+crop4"; or "none"."""
    parts = ["flip"] if dataset.flip else []
    parts += [
        f"{word}{dataset[field]:g}"
        for word, field in (
            ("crop", "crop_padding"),
            ("resized", "random_resized_crop"),
            ("rand", "rand_augment"),
            ("mixup", "mixup"),
            ("cutmix", "cutmix"),
        )
        if dataset[field]
    ]
    return "+".join(parts) or "none"


def _outcomes(
    found: dict[str, Any], gap: dict[str, Any], prefix: str = ""
) -> dict[str, float]:
    """Returns accuracy, loss and gap of what was evaluated on both splits."""
    return {
        **{
            f"{prefix}{split}_{what}": found[split][what]
            for what in ("accuracy", "loss")
            for split in _SPLITS
        },
        **_interval(f"{prefix}gap", gap["accuracy"]),
        **_interval(f"{prefix}loss_gap", gap["loss"]),
    }


def _interval(name: str, interval: dict[str, float]) -> dict[str, float]:
    return {
        name: interval["value"],
        f"{name}_low": interval["low"],
        f"{name}_high": interval["high"],
    }


def _verification(verified: dict[str, Any]) -> dict[str, Any]:
    tested, difference = verified["equivalence"], verified["difference"]
    # those of earlier versions have no latency
    latency = verified.get("latency_ms")
    return {
        **_interval("gap_difference", difference["accuracy"]),
        **_interval("loss_gap_difference", difference["loss"]),
        "verdict": verified["verdict"],
        "margin": tested["margin"],
        "equivalence_p_value": tested["p_value"],
        **{
            f"mcnemar_p_value_{split}": verified[split]["mcnemar"]["p_value"]
            for split in _SPLITS
        },
        "argmax_agreement": verified["test"]["argmax_agreement"],
        **{
            name: max(verified[split][name] for split in _SPLITS)
            for name in ("max_steps", "max_steps_deployed")
        },
        "kilobytes": verified["num_bytes"] / 1000.0,
        "latency_ms": latency["p50"] if latency else None,
    }


def _measures(measured: dict[str, Any]) -> dict[str, Any]:
    row = {}
    for name, result in measured["measures"].items():
        row[name] = result["value"]
        row[f"{name}_standard_error"] = result["standard_error"]
        row[f"{name}_converged"] = result["converged"]
    for name in ("noise_power", "predicted_noise_power"):
        row[name] = float(sum(layer[name] for layer in measured["noise"]))
    return row


def _corruptions(
    run: RunDirectory, measured: dict[str, Any], verified: dict[str, Any]
) -> dict[str, float]:
    row: dict[str, float] = {}
    if not (run.path / CORRUPTIONS_FILE).exists():
        return row
    with run.reading(CORRUPTIONS_FILE) as distorted:
        for found in distorted["sets"]:
            name = f"corrupted_{found['kind']}_{found['severity']}"
            for prefix, clean in (("", measured), ("file_", verified)):
                for what, gap in (("accuracy", "gap"), ("loss", "loss_gap")):
                    value = found[f"{prefix}{what}"]
                    row[f"{prefix}{name}_{what}"] = value
                    row[f"{prefix}{name}_{gap}"] = clean["train"][what] - value
    return row


def _seconds(run: RunDirectory) -> dict[str, float]:
    if not (run.path / SECONDS_FILE).exists():
        return {}
    with run.reading(SECONDS_FILE) as seconds:
        return {f"seconds_{stage}": value for stage, value in seconds.items()}
