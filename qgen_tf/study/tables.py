"""Tables for the terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd

# column -> (heading, digits after the point)
COLUMNS = {
    "model": ("model", None),
    "train_accuracy": ("train acc. [%]", 2),
    "test_accuracy": ("test acc. [%]", 2),
    "train_loss": ("train loss [nats]", 4),
    "test_loss": ("test loss [nats]", 4),
    "accuracy_gap": ("gap [points]", 2),
    "loss_gap": ("loss gap [nats]", 4),
    "tflite_accuracy_gap": ("TFLite gap [points]", 2),
    "gap_difference": ("TFLite - Keras [points]", 2),
    "verdict": ("same gap?", None),
    "argmax_agreement": ("same class, test [%]", 2),
    "kilobytes": ("file [kB]", 1),
}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns that answer the main question, as text."""
    columns = {}
    for column, (heading, digits) in COLUMNS.items():
        values = frame[column]
        columns[heading] = (
            values if digits is None else values.map(f"{{:.{digits}f}}".format)
        )
    return pd.DataFrame(columns)


def summary_text(frame: pd.DataFrame) -> str:
    """Returns the summary with a column for each model: it fits a terminal."""
    by_model = summary(frame).set_index("model").T
    by_model.columns.name = None
    return by_model.to_string()


def measures_text(record: dict[str, Any]) -> str:
    """Returns what `stages.measure` found, as text."""
    lines = [
        f"{split:5} accuracy {record[split]['accuracy']:6.2f} %  "
        f"loss {record[split]['loss']:.4f} nats"
        for split in ("train", "test")
    ]
    lines += _gap_lines("gap, train minus test", record["gap"])
    for name, result in record["measures"].items():
        note = "" if result["converged"] else "  (not converged)"
        error = result["standard_error"]
        spread = f" ± {error:.2g}" if error else ""
        lines.append(
            f"{name}: {result['value']:.4g}{spread} {result['unit']}{note}"
        )
    lines += [
        f"{name}: not taken: {reason}"
        for name, reason in record["failed"].items()
    ]
    if record["noise"]:
        noise = pd.DataFrame(record["noise"])
        lines += [
            "",
            noise.to_string(index=False, float_format="{:.4g}".format),
        ]
    return "\n".join(lines)


def verification_text(record: dict[str, Any]) -> str:
    """Returns what `stages.export` found, as text."""
    lines = [f"same gap as the trained model: {record['verdict']}"]
    lines += _gap_lines("gap of the trained model", record["keras_gap"])
    lines += _gap_lines("gap of the file", record["tflite_gap"])
    lines += _gap_lines("file minus model", record["difference"])
    for split in ("train", "test"):
        agreement = record[split]
        lines.append(
            f"{split}: same class on {agreement['argmax_agreement']:.2f} %, "
            f"logits at most {agreement['max_steps']:.1f} steps apart "
            f"({agreement['max_steps_deployed']:.1f} from the deployed network)"
        )
    lines.append(f"file: {record['num_bytes']} bytes")
    return "\n".join(lines)


def _gap_lines(title: str, gap: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"{title}: {interval['value']:+.4f} {unit} "
        f"[{interval['low']:+.4f}, {interval['high']:+.4f}]"
        for interval, unit in (
            (gap["accuracy"], "points"),
            (gap["loss"], "nats"),
        )
    ]
