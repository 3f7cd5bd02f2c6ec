"""Tables for the terminal."""

from __future__ import annotations

import collections
from typing import Any

import pandas as pd

# column -> (heading, digits after the point)
COLUMNS = {
    "bits": ("model", None),
    "train_accuracy": ("train acc. [%]", 2),
    "test_accuracy": ("test acc. [%]", 2),
    "train_loss": ("train loss [nats]", 4),
    "test_loss": ("test loss [nats]", 4),
    "gap": ("gap [points]", 2),
    "loss_gap": ("loss gap [nats]", 4),
    "file_gap": ("TFLite gap [points]", 2),
    "gap_difference": ("TFLite - Keras [points]", 2),
    "verdict": ("same gap?", None),
    "argmax_agreement": ("same class, test [%]", 2),
    "kilobytes": ("file [kB]", 1),
}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns that answer the main question, as text.

    Of one float model and its twins there is a row for each. Of several, there
    is one for each choice of bits, with the number of models, their means with
    standard errors, and how many files have the gap of their model.
    """
    is_one = frame["twin_of"].nunique() == 1
    return (_of_each if is_one else _of_bits)(frame)


def _of_each(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for column, (heading, digits) in COLUMNS.items():
        values = frame[column]
        columns[heading] = (
            values if digits is None else values.map(f"{{:.{digits}f}}".format)
        )
    return pd.DataFrame(columns)


def _of_bits(frame: pd.DataFrame) -> pd.DataFrame:
    order = frame.sort_values(
        ["weight_bits", "activation_bits"], ascending=False
    )["bits"].unique()
    rows = []
    for bits in order:
        models = frame[frame["bits"] == bits]
        row = {"model": bits, "models": str(len(models))}
        for column, (heading, digits) in COLUMNS.items():
            if digits is not None:
                row[heading] = _mean_text(models[column], digits)
            elif column == "verdict":
                same = int((models["verdict"] == "same").sum())
                row[heading] = f"same: {same} of {len(models)}"
        rows.append(row)
    return pd.DataFrame(rows)


def _mean_text(values: pd.Series, digits: int) -> str:
    """Returns a mean with its standard error, if that is known."""
    text = f"{values.mean():.{digits}f}"
    if values.count() < 2:
        return text
    return f"{text} ± {values.sem():.{digits}f}"


def summary_text(frame: pd.DataFrame) -> str:
    """Returns the summary with a column for each of its rows."""
    by_model = summary(frame).set_index("model").T
    by_model.columns.name = None
    return by_model.to_string()


def measures_text(record: dict[str, Any]) -> str:
    """Returns what `measuring.measure` found, as text."""
    lines = []
    if "source" in record:
        lines.append(f"with the weights of {record['source']['file']}")
    lines += [
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
    """Returns what `exporting.verify` found, as text."""
    lines = [
        f"same gap as the trained model: {record['verdict']}",
        f"gap: {_tested_text(record['equivalence'])}",
    ]
    lines += _comparison_lines(record, "gap")
    for split in ("train", "test"):
        lines += _agreement_lines(split, record[split])
    if record["corrupted"]:
        kind = corruption_text(record)
        lines += _comparison_lines(record["corrupted"], f"gap to {kind}")
        lines += _agreement_lines(kind, record["corrupted"]["test"])
    lines.append(_file_line(record))
    # records of earlier versions have none
    if latency := record.get("latency_ms"):
        lines.append(
            f"latency: p50 {latency['p50']:.3g} ms, p90 {latency['p90']:.3g} "
            "ms for an image, on one thread of this machine"
        )
    return "\n".join(lines)


def device_text(record: dict[str, Any]) -> str:
    """Returns what `comparison.compare` found, as text."""
    latency = record["latency_ms"]
    lines = [
        f"same gap on the device: {record['verdict']}",
        f"gap: {_tested_text(record['equivalence'])}",
        *_gap_lines("gap of the trained model", record["keras_gap"]),
        *_gap_lines("gap of the file, here", record["tflite_gap"]),
        *_gap_lines("gap of the file, on the device", record["device_gap"]),
        *_gap_lines("device minus model", record["difference"]),
        *_gap_lines("device minus file here", record["file_difference"]),
    ]
    for split in ("train", "test"):
        found = record[split]
        agreement = found["agreement"]
        lines += [
            f"{split}: accuracy {found['accuracy']:.2f} %, loss "
            f"{found['loss']:.4f} nats, McNemar p = "
            f"{found['mcnemar']['p_value']:.2g}",
            f"{split}: {_tested_text(found['equivalence'])}",
            f"{split}: {agreement['different_outputs']} examples with other "
            f"outputs than here, by {agreement['max_steps']:.4g} steps at most",
        ]
    memory = record["peak_memory_mb"]
    peak = "" if memory is None else f", peak memory {memory:.0f} MB"
    machine = ", ".join(f"{k} {v}" for k, v in record["machine"].items())
    lines.append(
        f"device: {machine}; {record['num_threads']} threads, "
        f"{record['kernels']}; latency p50 {latency['p50']:.2f} ms, p90 "
        f"{latency['p90']:.2f} ms{peak}"
    )
    return "\n".join(lines)


def divergence_text(rows: list[dict[str, Any]]) -> str:
    """Returns what `explaining.explain` found, as text."""
    first = next((row for row in rows if row["max_steps"]), None)
    if first is None:
        return f"file and network agree in all of {len(rows)} layers"
    frame = pd.DataFrame(rows)
    steps = first["max_steps"]
    return (
        f"first layer that diverges: {first['layer']}, by {steps:g} "
        f"step{'s' * (steps != 1)} at most, on {100.0 * first['share']:.3g} % "
        "of its values\n\n"
        + frame.to_string(index=False, float_format="{:.4g}".format)
    )


def corruption_text(record: dict[str, Any]) -> str:
    """Returns the corruption of a verification, "" if there is none."""
    settings = record["settings"]
    if settings["corruption"] is None:
        return ""
    return f"{settings['corruption']} {settings['severity']}"


def interval_text(interval: dict[str, float]) -> str:
    """Returns an estimate with its interval."""
    return (
        f"{interval['value']:+.4f} "
        f"[{interval['low']:+.4f}, {interval['high']:+.4f}]"
    )


def _tested_text(tested: dict[str, Any]) -> str:
    return (
        f"equivalent within {tested['margin']:g} points: "
        f"{'yes' if tested['equivalent'] else 'not shown'}, "
        f"p = {tested['p_value']:.2g}, 90 % interval "
        f"[{tested['low']:+.4f}, {tested['high']:+.4f}]"
    )


def _comparison_lines(found: dict[str, Any], name: str) -> list[str]:
    return [
        *_gap_lines(f"{name} of the trained model", found["keras_gap"]),
        *_gap_lines(f"{name} of the file", found["tflite_gap"]),
        *_gap_lines(f"{name}, file minus model", found["difference"]),
    ]


def _agreement_lines(name: str, agreement: dict[str, Any]) -> list[str]:
    mcnemar = agreement["mcnemar"]
    return [
        f"{name}: {agreement['num_examples']} examples, accuracy "
        f"{agreement['trained_accuracy']:.2f} % of the model, "
        f"{agreement['accuracy']:.2f} % of the file",
        f"{name}: same class as the model on "
        f"{agreement['argmax_agreement']:.2f} %, logits at most "
        f"{agreement['max_steps']:.1f} steps apart; as the deployed network on "
        f"{agreement['argmax_agreement_deployed']:.2f} %, at most "
        f"{agreement['max_steps_deployed']:.1f} steps apart",
        f"{name}: {_tested_text(agreement['equivalence'])}",
        f"{name}: only the file is right on {mcnemar['only_ours']}, only the "
        f"model on {mcnemar['only_theirs']}: McNemar p = "
        f"{mcnemar['p_value']:.2g}",
    ]


def _file_line(record: dict[str, Any]) -> str:
    counts = collections.Counter(record["float_operators"])
    floats = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    expanded = ", weights expanded to 8 bits" * record["expand_low_bits"]
    return (
        f"file: {record['num_bytes']} bytes, {record['settings']['storage']} "
        f"weights, run by {record['kernels']}{expanded}; in float: "
        f"{floats or 'nothing'}"
    )


def _gap_lines(title: str, gap: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"{title}: {interval_text(gap[quantity])} {unit}"
        for quantity, unit in (("accuracy", "points"), ("loss", "nats"))
    ]
