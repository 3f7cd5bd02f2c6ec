"""Tables of a report, in the form of the paper: records to text.

Numbers are means over models ± their standard errors; those of one model have
none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from qgen_tf.measures import MEASURES
from qgen_tf.study import schema
from qgen_tf.study.reporting import figures
from qgen_tf.study.reporting.study_figures import SIDES
from qgen_tf.study.statistics import neighbours, orientation, paired

_MOST_DIGITS = 6  # after the point; what is smaller is written as 1.2e-07
_MOST_VALUES = 12  # of a hyper-parameter, that are listed
_REPEATED = ("seed", "stop_at_loss")
# what a study may hold fixed, beside the hyper-parameters
_FIXED = ("dataset", "num_train", "num_test", "parameters", "epochs", "seed")
_NAMES = {"num_train": "training examples", "num_test": "test examples"}
_QUANTITIES = {"accuracy": ("%", 2), "loss": ("nats", 4)}
_GAPS = {"accuracy": "gap", "loss": "loss_gap"}
_DISTORTED = re.compile(
    r"(file_)?corrupted_(.+)_(\d+)_(accuracy|loss|gap|loss_gap)"
)
_EVERY = {
    "run": "run",
    "model": "model",
    "bits": "bits",
    "train_accuracy": "train acc. [%]",
    "test_accuracy": "test acc. [%]",
    "gap": "gap [points]",
    "train_loss": "train loss [nats]",
    "test_loss": "test loss [nats]",
    "file_gap": "file gap [points]",
    "verdict": "same gap?",
    "argmax_agreement": "same class, test [%]",
    "max_steps": "max. difference to trained [steps]",
    "max_steps_deployed": "max. difference to deployed [steps]",
    "kilobytes": "file [kB]",
    "latency_ms": "latency [ms]",
}


def mean(values: pd.Series, digits: int | None = None) -> str:
    """Returns the mean ± its standard error, "" if nothing is known.

    Args:
      values: one for each independent model.
      digits: after the point; None for as many as the error leaves.
    """
    known = values.dropna().astype(np.float64)
    if known.empty:
        return ""
    if len(known) < 2:
        return _text(known.mean(), digits)
    return _uncertain(known.mean(), known.sem(), digits)


def _text(value: float, digits: int | None) -> str:
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def _uncertain(value: float, error: float, digits: int | None) -> str:
    """Returns the value ± its error, of which two digits are shown."""
    if digits is None and error > 0.0:
        digits = max(1 - math.floor(math.log10(error)), 0)
        if digits > _MOST_DIGITS:
            digits = None
    return f"{_text(value, digits)} ± {_text(error, digits)}"


def design(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the hyper-parameters that vary, with their values."""
    names = neighbours.varied(frame)
    names += [name for name in _REPEATED if frame[name].nunique() > 1]
    return pd.DataFrame(
        [
            {
                "hyper-parameter": name.replace("_", " "),
                "values": _values(frame, name),
                "float models each": _counts(frame, name),
            }
            for name in names
        ]
    )


def _values(frame: pd.DataFrame, name: str) -> str:
    values: list[object]
    if name == "bits":
        values = list(figures.by_bits(frame))
    else:
        values = sorted(frame[name].dropna().unique())
    texts = [
        f"{value:g}" if isinstance(value, float) else str(value)
        for value in values
    ]
    if len(texts) > _MOST_VALUES:
        return f"{len(texts)} values from {texts[0]} to {texts[-1]}"
    return ", ".join(texts)


def _counts(frame: pd.DataFrame, name: str) -> str:
    """Returns how many float models have each value, such as "4 to 6"."""
    counts = frame.groupby(name)[paired.CLUSTER].nunique()
    few, many = counts.min(), counts.max()
    return f"{few}" if few == many else f"{few} to {many}"


def constants(frame: pd.DataFrame) -> dict[str, str]:
    """Returns what all float models of a study have in common."""
    floats = frame[paired.is_float(frame)]
    names = [*_FIXED, *neighbours.HYPERPARAMETERS[:-1]]  # but bits
    shared = {
        _NAMES.get(name, name.replace("_", " ")): _values(floats, name)
        for name in names
        if name in frame and floats[name].nunique() == 1
    }
    if frame["quantizer"].nunique():  # float models have none
        shared["quantizer"] = _values(frame, "quantizer")
    return shared


def outcomes(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Returns train, test and gap by model and bits, of models and of files.

    Args:
      frame: records.
      quantity: "accuracy" or "loss".
    """
    unit, digits = _QUANTITIES[quantity]
    gap_unit = "points" if quantity == "accuracy" else unit
    rows = []
    for network, of_network in frame.groupby("model", sort=False):
        for bits in figures.by_bits(of_network):
            models = of_network[of_network["bits"] == bits]
            row = {"model": network, "bits": bits, "models": len(models)}
            for prefix, side in SIDES.items():
                for split in ("train", "test"):
                    row[f"{side}: {split} [{unit}]"] = mean(
                        models[f"{prefix}{split}_{quantity}"], digits
                    )
                row[f"{side}: gap [{gap_unit}]"] = mean(
                    models[f"{prefix}{_GAPS[quantity]}"], digits
                )
            rows.append(row)
    return pd.DataFrame(rows)


def taken(frame: pd.DataFrame) -> list[str]:
    """Returns the measures that some model of the records has."""
    return [
        name for name in MEASURES if name in frame and frame[name].notna().any()
    ]


def flatness(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns every measure, in a row, by bits.

    Of one model, ± is the standard error over noise draws.
    """
    is_single = frame[paired.CLUSTER].nunique() == 1
    rows = []
    for name in taken(frame):
        unit = schema.describe(name).unit
        row = {"measure": name.replace("_", " "), "unit": unit}
        row["flatter is"] = ""
        if name in orientation.FLATNESS:
            less = orientation.direction(name) == 1
            row["flatter is"] = "less" if less else "more"
        for bits in figures.by_bits(frame):
            models = frame[frame["bits"] == bits]
            row[bits] = (
                _of_one(models.iloc[0], name)
                if is_single
                else mean(models[name])
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _of_one(model: pd.Series, name: str) -> str:
    if pd.isna(model[name]):
        return ""
    text, error = _text(model[name], None), model[f"{name}_standard_error"]
    if pd.notna(error) and error:
        text = _uncertain(model[name], error, None)
    converged = model[f"{name}_converged"]
    return text if pd.isna(converged) or converged else f"{text} (bound hit)"


def distorted(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each model and distorted test set.

    Returns:
      `twin_of`, `bits`, `kind`, `severity`, and `accuracy`, `loss`, `gap`,
      `loss_gap` of the model, the same of its file with `file_`. No row if no
      distorted test set was evaluated.
    """
    sets: dict[tuple[str, int], dict[str, pd.Series]] = {}
    for column in frame:
        if found := _DISTORTED.fullmatch(column):
            file, kind, severity, outcome = found.groups()
            outcomes = sets.setdefault((kind, int(severity)), {})
            outcomes[f"{file or ''}{outcome}"] = frame[column]
    parts = [
        frame[[paired.CLUSTER, "bits"]].assign(
            kind=kind, severity=severity, **outcomes
        )
        for (kind, severity), outcomes in sets.items()
    ]
    if not parts:
        return pd.DataFrame(
            columns=[paired.CLUSTER, "bits", "kind", "severity"]
        )
    return pd.concat(parts, ignore_index=True).dropna(subset=["gap"])


def distorted_by(
    rows: pd.DataFrame, keys: Sequence[str], bits: Sequence[str]
) -> pd.DataFrame:
    """Returns outcomes on distorted data by keys and bits.

    What a float model and its twins have over all other keys is averaged
    first: models are independent, test sets are not.

    Args:
      rows: of `distorted`.
      keys: "kind", "severity" or both.
      bits: labels, in the order of the rows.
    """
    columns = {
        f"{prefix}{outcome}": (f"{side}: {heading}", digits)
        for outcome, heading, digits in (
            ("accuracy", "acc. [%]", 2),
            ("gap", "gap [points]", 2),
            ("loss_gap", "loss gap [nats]", 4),
        )
        for prefix, side in SIDES.items()
    }
    by_cluster = (
        rows.assign(bits=pd.Categorical(rows["bits"], bits))
        .groupby([*keys, "bits", paired.CLUSTER], observed=True)[[*columns]]
        .mean()
    )
    return pd.DataFrame(
        [
            dict(zip([*keys, "bits"], found, strict=True))
            | {
                heading: mean(models[column], digits)
                for column, (heading, digits) in columns.items()
            }
            for found, models in by_cluster.groupby(
                level=[*keys, "bits"], observed=True
            )
        ]
    )


def verification(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns, by bits, how the deployed files agree with their models."""
    rows = []
    for bits in figures.by_bits(frame):
        models = frame[frame["bits"] == bits]
        counts = models["verdict"].value_counts()
        row = {"bits": bits, "files": len(models)}
        for verdict in ("same", "cannot tell", "different"):
            row[verdict] = counts.get(verdict, 0)
        row |= {
            "file minus model, mean [points]": mean(
                models["gap_difference"], 3
            ),
            "largest [points]": models["gap_difference"].abs().max(),
            "same class, mean [%]": mean(models["argmax_agreement"], 2),
            "least [%]": models["argmax_agreement"].min(),
            "to the trained model [steps]": models["max_steps"].max(),
            "to the deployed network [steps]": models[
                "max_steps_deployed"
            ].max(),
            "file [kB]": mean(models["kilobytes"], 1),
            "latency [ms]": mean(models["latency_ms"], 3),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def every_model(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each model."""
    return renamed(frame, _EVERY)


def renamed(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Returns the columns that are there, under their headings."""
    known = {name: text for name, text in columns.items() if name in frame}
    return frame[[*known]].rename(columns=known)
