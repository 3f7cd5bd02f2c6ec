"""What a report shows of run directories, beside their records."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from qgen_tf.measures import LossRise
from qgen_tf.study import measuring, record_files, records, trial
from qgen_tf.study.reporting import (
    figures,
    landscape_figures,
    landscapes,
    report_tables,
    theory_figures,
)
from qgen_tf.study.statistics import paired
from qgen_tf.training import RunDirectory, json_files

_HISTORY_FILE = "history.csv"
_FAILURE = ("stage", "reason")

_NOISE = {
    "bits": "bits",
    "layer": "layer",
    "num_bits": "bits of the layer",
    "num_weights": "weights",
    "step_size": "bin width",
    "noise_power": "noise power",
    "predicted_noise_power": "predicted",
    "uniform_distance": "distance",
    "clipped": "clipped",
    "weight_correlation": "correlation",
}
_QUANTIZATION = {
    "bits": "bits",
    "layer": "layer",
    "kind": "kind",
    "weight_bits": "weight bits",
    "weight_step": "step of weights",
    "levels_used": "levels used",
    "activation_bits": "activation bits",
    "activation_step": "step of activations",
    "low": "from",
    "high": "to",
    "note": "what becomes of it",
}


def shown(
    frame: pd.DataFrame,
    runs: Sequence[RunDirectory],
    folder: str | os.PathLike[str],
    *,
    landscape: bool,
) -> dict[str, Any]:
    """Returns tables and figures; those that nothing is known of are None.

    Args:
      frame: records.
      runs: run directories of the records, or none.
      folder: of the report; a `landscape.json` may be there.
      landscape: takes landscapes if there are runs.
    """
    palette = figures.colors(frame)
    layers = _layers(frame, runs)
    first = _first_cluster(frame, runs)
    histories = _histories(frame, runs)
    planes = (
        landscapes.take(first, folder)
        if landscape and first
        else landscapes.read(folder)
    )
    rises = _rises(runs)
    has_layers = len(layers) > 0
    return {
        "any": len(runs) > 0,
        "palette": palette,
        "quantized": {
            bits: color for bits, color in palette.items() if bits != "float"
        },
        "failures": _failures(frame, runs),
        "bin_widths": (
            figures.bin_widths(layers, palette) if has_layers else None
        ),
        "noise_powers": (
            figures.noise_powers(layers, palette) if has_layers else None
        ),
        "noise": _noise(layers) if has_layers else None,
        "num_noisy": layers["run"].nunique() if has_layers else 0,
        "quantization": _quantization(first),
        "landscape": landscape_figures.contours(planes) if planes else None,
        "histories": (
            figures.histories(histories, palette) if len(histories) else None
        ),
        "rises": theory_figures.rise_figure(rises) if rises else None,
    }


def _first_cluster(
    frame: pd.DataFrame, runs: Sequence[RunDirectory]
) -> list[RunDirectory]:
    """Returns the runs of the first float model that has most twins."""
    of_name = {run.path.name: run for run in runs}
    rows = frame[frame["run"].isin(list(of_name))]
    if rows.empty:
        return []
    sizes = rows.groupby(paired.CLUSTER, sort=False).size()
    chosen = rows[rows[paired.CLUSTER] == sizes.idxmax()]
    labels = figures.by_bits(chosen)
    chosen = chosen.drop_duplicates("bits").set_index("bits").loc[labels]
    return [of_name[name] for name in chosen["run"]]


def _layers(frame: pd.DataFrame, runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Returns a row for each run and quantized layer, with its network."""
    noise = records.noise(runs)
    if noise.empty:
        return noise
    return noise.merge(frame[["run", "model"]], on="run")


def _noise(layers: pd.DataFrame) -> pd.DataFrame:
    """Returns the noise of each layer: the median over runs."""
    keys = ["model", "bits", "layer"]
    medians = layers.groupby(keys, sort=False).median(numeric_only=True)
    columns = dict(_NOISE)
    if layers["model"].nunique() > 1:
        columns = {"model": "model", **columns}
    return report_tables.renamed(medians.reset_index(), columns)


def _quantization(cluster: Sequence[RunDirectory]) -> pd.DataFrame | None:
    found = records.quantization(cluster)
    return report_tables.renamed(found, _QUANTIZATION) if len(found) else None


def _histories(
    frame: pd.DataFrame, runs: Sequence[RunDirectory]
) -> pd.DataFrame:
    """Returns a row for each run and epoch."""
    bits = frame.set_index("run")["bits"]
    parts = [
        record_files.table(
            run.path / _HISTORY_FILE,
            f"move {run.path} away and train it again",
            numbers=["epoch", "loss", "accuracy"],
        ).assign(run=run.path.name, bits=bits[run.path.name])
        for run in runs
        if run.path.name in bits
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _rises(runs: Sequence[RunDirectory]) -> list[LossRise]:
    """Returns what rounding costs the first float run that knows it."""
    for run in runs:
        with run.reading(measuring.MEASURES_FILE) as measured:
            if found := measured.get("rises"):
                return [json_files.result(LossRise, row) for row in found]
    return []


def _failures(
    frame: pd.DataFrame, runs: Sequence[RunDirectory]
) -> pd.DataFrame | None:
    """Returns the trials beside the runs whose last attempt failed."""
    names = set(frame["name"])
    folders: dict[pathlib.Path, None] = dict.fromkeys(
        run.path.parent for run in runs
    )
    rows = []
    for folder in folders:
        for path in sorted(folder.glob(f"*/{trial.FAILURE_FILE}")):
            run = RunDirectory(path.parent)
            if run.config.name in names:
                with run.reading(trial.FAILURE_FILE) as failure:
                    shown = {name: str(failure[name]) for name in _FAILURE}
                rows.append({"run": run.path.name, **shown})
    return pd.DataFrame(rows) if rows else None
