"""Plots of a study."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

import matplotlib.figure
import numpy as np
import pandas as pd

from qgen_tf.training import RunDirectory

_SIZE = (7.0, 3.4)
# Above the axes, where no point can be.
LEGEND = {
    "frameon": False,
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "ncols": 4,
    "borderaxespad": 0.2,
}


def panels(columns: int = 1) -> tuple[matplotlib.figure.Figure, np.ndarray]:
    """Returns a figure and its axes, side by side."""
    figure = matplotlib.figure.Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _error(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Returns distances to the ends of an interval, [2, models]."""
    values = frame[column]
    low, high = frame[f"{column}_low"], frame[f"{column}_high"]
    return np.maximum([values - low, high - values], 0.0)


def gaps(frame: pd.DataFrame) -> matplotlib.figure.Figure:
    """Gap of each trained model and of its file, with 95 % intervals."""
    figure, axes = panels(2)
    positions = np.arange(len(frame))
    for axis, suffix, label in zip(
        axes, ("accuracy_gap", "loss_gap"), ("points", "nats"), strict=True
    ):
        for shift, prefix, name in (
            (-0.1, "", "Keras"),
            (0.1, "tflite_", "TFLite"),
        ):
            axis.errorbar(
                positions + shift,
                frame[prefix + suffix],
                yerr=_error(frame, prefix + suffix),
                fmt="o",
                capsize=3,
                label=name,
            )
        axis.axhline(0.0, color="0.5", linewidth=0.8)
        axis.set_xticks(positions, frame["model"])
        axis.set_ylabel(f"{suffix.replace('_', ' ')} [{label}]")
        axis.legend(**LEGEND)
    return figure


def accuracies(frame: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy and loss of each model on the training and the test set."""
    figure, axes = panels(2)
    positions = np.arange(len(frame))
    for axis, quantity, unit in zip(
        axes, ("accuracy", "loss"), ("%", "nats"), strict=True
    ):
        for split, marker in (("train", "o"), ("test", "s")):
            axis.plot(
                positions, frame[f"{split}_{quantity}"], marker, label=split
            )
        axis.set_xticks(positions, frame["model"])
        axis.set_ylabel(f"{quantity} [{unit}]")
        axis.legend(**LEGEND)
    return figure


def flatness(
    frame: pd.DataFrame, measures: Sequence[str]
) -> matplotlib.figure.Figure:
    """Each flatness measure of each model, with its standard error."""
    figure, axes = panels(len(measures))
    positions = np.arange(len(frame))
    for axis, name in zip(axes, measures, strict=True):
        axis.errorbar(
            positions,
            frame[name],
            yerr=frame[f"{name}_standard_error"],
            fmt="o",
            capsize=3,
        )
        axis.set_xticks(positions, frame["model"])
        axis.set_ylabel(name.replace("_", " "))
    return figure


def bin_widths(noise: pd.DataFrame) -> matplotlib.figure.Figure:
    """Mean bin width of each layer, a line for each bit width."""
    figure, (axis,) = panels()
    for model, rows in noise.groupby("model", sort=False):
        axis.semilogy(rows["layer"], rows["step_size"], ".-", label=model)
    axis.set_ylabel("bin width")
    axis.tick_params(axis="x", labelrotation=60)
    axis.legend(**LEGEND)
    return figure


def noise_powers(noise: pd.DataFrame) -> matplotlib.figure.Figure:
    """Measured noise power of each layer against the prediction of theory."""
    figure, (axis,) = panels()
    for model, rows in noise.groupby("model", sort=False):
        axis.loglog(
            rows["predicted_noise_power"], rows["noise_power"], "o", label=model
        )
    powers = noise[["predicted_noise_power", "noise_power"]].to_numpy()
    ends = [powers[powers > 0].min(), powers.max()]
    axis.loglog(ends, ends, color="0.5", linewidth=0.8, label="equal")
    axis.set_xlabel("predicted: sum of s² / 12")
    axis.set_ylabel("measured")
    axis.legend(**LEGEND)
    return figure


def histories(runs: Iterable[RunDirectory]) -> matplotlib.figure.Figure:
    """Training loss and accuracy of each run, epoch by epoch."""
    figure, axes = panels(2)
    for run in runs:
        history = pd.read_csv(run.path / "history.csv")
        for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
            axis.plot(history["epoch"], history[name], label=run.label)
            axis.set_xlabel("epoch")
            axis.set_ylabel(f"training {name}")
    axes[0].set_yscale("log")
    axes[0].legend(**LEGEND)
    return figure


def data_uri(figure: matplotlib.figure.Figure) -> str:
    """Returns a figure as a PNG inside a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/png;base64,{encoded}"
