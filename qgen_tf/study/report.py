"""One HTML file that shows a study."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import markupsafe
import pandas as pd

from qgen_tf.measures import LossRise
from qgen_tf.study import (
    figures,
    measuring,
    pages,
    records,
    tables,
    theory_figures,
)
from qgen_tf.training import TRAINED_FILE, RunDirectory, atomic_path

_NOISE_COLUMNS = {
    "model": "model",
    "layer": "layer",
    "num_bits": "bits",
    "num_weights": "weights",
    "step_size": "bin width",
    "noise_power": "noise power",
    "predicted_noise_power": "predicted",
    "uniform_distance": "distance",
    "clipped": "clipped",
    "weight_correlation": "correlation",
}
_QUANTIZATION_COLUMNS = {
    "model": "model",
    "layer": "layer",
    "kind": "kind",
    "weight_bits": "weight bits",
    "weight_step": "step",
    "levels_used": "levels used",
    "activation_bits": "activation bits",
    "activation_step": "step",
    "low": "from",
    "high": "to",
    "note": "what becomes of it",
}
_AGREEMENT_COLUMNS = {
    "model": "model",
    "argmax_agreement": "same class, test [%]",
    "max_steps": "max. difference to trained [steps]",
    "max_steps_deployed": "max. difference to deployed [steps]",
    "kilobytes": "file [kB]",
}


def write(runs: Sequence[RunDirectory], workdir: str | os.PathLike[str]) -> str:
    """Writes the report of runs of one config and returns the main table.

    The files `report.html`, `records.csv` and `noise.csv` are written into the
    folder of `workdir` that has the config's name.

    Args:
      runs: went through every stage.
      workdir: folder of run directories.

    Returns:
      The table, and below it the path of the report.
    """
    folder = pathlib.Path(workdir) / runs[0].config.name
    frame = records.load(runs)
    noise = records.noise(runs)
    for name, content in (
        ("records.csv", frame.to_csv(index=False)),
        ("noise.csv", noise.to_csv(index=False)),
        ("report.html", _render(runs, frame, noise)),
    ):
        with atomic_path(folder / name) as target:
            target.write_text(content)
    return f"{tables.summary_text(frame)}\n\n{folder / 'report.html'}"


def _render(
    runs: Sequence[RunDirectory], frame: pd.DataFrame, noise: pd.DataFrame
) -> str:
    first = runs[0].read_json(measuring.MEASURES_FILE)
    names = list(first["measures"])
    plots = {
        "gaps": figures.gaps(frame),
        "accuracies": figures.accuracies(frame),
        "flatness": figures.flatness(frame, names),
        "histories": figures.histories(runs),
    }
    if first.get("rises"):
        plots["rises"] = theory_figures.rise_figure(
            [LossRise(**row) for row in first["rises"]]
        )
    if len(noise):
        plots["bin_widths"] = figures.bin_widths(noise)
        plots["noise_powers"] = figures.noise_powers(noise)

    def plot(name: str, caption: str) -> markupsafe.Markup:
        return pages.plot(plots[name], caption)

    return pages.render(
        "report.html",
        title=f"Generalization of {runs[0].config.name}",
        facts=_facts(runs[0]),
        margin=_alternatives(frame["margin"]),
        num_examples=first["settings"]["num_examples"] or "all",
        summary=tables.summary(frame),
        agreement=_renamed(frame, _AGREEMENT_COLUMNS),
        flatness=_flatness(frame, names),
        noise=_renamed(noise, _NOISE_COLUMNS),
        quantization=_renamed(
            records.quantization(runs), _QUANTIZATION_COLUMNS
        ),
        has=plots.__contains__,
        plot=plot,
        table=pages.table,
    )


def _facts(run: RunDirectory) -> str:
    config, facts = run.config, run.read_json(TRAINED_FILE)
    return (
        f"Data set {config.dataset.name}: {facts['num_train']} training and "
        f"{facts['num_test']} test examples of {facts['image_shape']}. Model "
        f"{config.model.name}, {facts['parameters']} parameters. Seed "
        f"{config.seed}; one model for each bit width."
    )


def _flatness(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    columns = {"model": frame["model"]}
    for name in names:
        columns[name.replace("_", " ")] = [
            f"{value:.4g} ± {error:.2g}{'' if converged else ' (bound hit)'}"
            for value, error, converged in zip(
                frame[name],
                frame[f"{name}_standard_error"],
                frame[f"{name}_converged"],
                strict=True,
            )
        ]
    return pd.DataFrame(columns)


def _renamed(
    frame: pd.DataFrame, columns: dict[str, str]
) -> pd.DataFrame | None:
    """Returns the columns under their headings; None if there is no row."""
    if not len(frame):
        return None
    return frame[[*columns]].set_axis(list(columns.values()), axis="columns")


def _alternatives(values: pd.Series) -> str:
    """Returns the different values, such as "0.5 or 1"."""
    return " or ".join(f"{value:g}" for value in values.unique())
