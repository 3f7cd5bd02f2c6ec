"""Plots of runs, and what all plots of a study have in common."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable

import matplotlib
import matplotlib.axes
import matplotlib.collections
import matplotlib.colors
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import pandas as pd

_SIZE = (7.0, 3.4)
_PANEL = (3.2, 2.6)
# Above the axes, where no point can be.
LEGEND = {
    "frameon": False,
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "ncols": 4,
    "borderaxespad": 0.2,
}
# Of middling brightness: to be told apart on white and on black.
GREY = "#858c96"
ACCENT = "#3f87d1"
_COLORS = (ACCENT, "#d9822b", "#c2457f", "#3d9a65", "#8e6bd1", "#a08a2c")
_MOST_SHAPES = 200  # more of them are drawn as pixels, which take less room
_DPI = 110  # of what is drawn as pixels


def panels(columns: int = 1) -> tuple[matplotlib.figure.Figure, np.ndarray]:
    """Returns a figure and its axes, side by side."""
    figure = matplotlib.figure.Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        _plain(axis)
    return figure, axes


def panel(
    title: str = "",
) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    """Returns a figure of one panel: a page sets them side by side."""
    figure = matplotlib.figure.Figure(figsize=_PANEL, layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize="medium", loc="left")
    _plain(axis)
    return figure, axis


def _plain(axis: matplotlib.axes.Axes) -> None:
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def by_bits(frame: pd.DataFrame) -> list[str]:
    """Returns the labels of bits, those with more bits first."""
    columns = ["weight_bits", "activation_bits", "bits"]
    rows = frame[columns].drop_duplicates()
    return rows.sort_values(columns, ascending=False)["bits"].tolist()


def colors(frame: pd.DataFrame) -> dict[str, str]:
    """Returns the color of each label of bits: grey is float."""
    labels = [label for label in by_bits(frame) if label != "float"]
    palette: Iterable[str] = _COLORS
    if len(labels) > len(_COLORS):
        gradient = matplotlib.colormaps["turbo"]
        palette = [
            matplotlib.colors.to_hex(gradient(place))
            for place in np.linspace(0.1, 0.9, len(labels))
        ]
    return {"float": GREY} | dict(zip(labels, palette, strict=False))


def are_many(number: int) -> bool:
    """Whether so many points or lines are to be drawn as pixels."""
    return number > _MOST_SHAPES


def faint_lines(
    axis: matplotlib.axes.Axes,
    lines: list[np.ndarray],
    color: str | list[str] = GREY,
    *,
    opacity: float = 0.5,
) -> None:
    """Draws lines, each [points, 2]; the more there are the fainter."""
    number = max(len(lines), 1)
    axis.add_collection(
        matplotlib.collections.LineCollection(
            lines,
            colors=color,
            linewidths=0.8,
            alpha=float(np.clip(8.0 / number, 0.06, opacity)),
            rasterized=are_many(number),
        )
    )
    axis.autoscale_view()


def histories(
    runs: pd.DataFrame, palette: dict[str, str]
) -> list[matplotlib.figure.Figure]:
    """Training loss and accuracy of each run, epoch by epoch.

    Args:
      runs: a row for each run and epoch, with `run` and `bits`.
      palette: of `colors`.
    """
    drawn = []
    for name in ("loss", "accuracy"):
        figure, axis = panel(f"training {name}")
        curves = runs.groupby(["run", "bits"], sort=False)
        lines = [rows[["epoch", name]].to_numpy() for _, rows in curves]
        tints = [palette[bits] for (_, bits), _ in curves]
        faint_lines(axis, lines, tints, opacity=0.9)
        ends = np.array([line[-1] for line in lines])
        axis.scatter(
            ends[:, 0],
            ends[:, 1],
            s=8,
            color=tints,
            rasterized=are_many(len(ends)),
        )
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(integer=True)
        )
        if name == "loss" and spans_a_decade(runs[name].to_numpy()):
            axis.set_yscale("log")
        drawn.append(figure)
    return drawn


def spans_a_decade(values: np.ndarray) -> bool:
    """Whether values are positive and spread so that logarithms show more."""
    return bool(values.min() > 0.0 and values.max() > 10.0 * values.min())


def bin_widths(
    layers: pd.DataFrame, palette: dict[str, str]
) -> list[matplotlib.figure.Figure]:
    """Bin width of each layer: figure 1 of QGen, a panel for each network.

    Lines are medians over runs; the shade reaches from the smallest to the
    largest. A single run has its channels in the place of runs.

    Args:
      layers: a row for each run and quantized layer, with `model`, `bits` and
        the fields of `LayerNoise`.
      palette: of `colors`.
    """
    drawn = []
    for network, rows in layers.groupby("model", sort=False):
        figure, axis = panel(str(network))
        names = _in_order(rows)
        figure.set_size_inches(_SIZE[0], 3.8)
        for bits, of_bits in rows.groupby("bits", sort=False):
            by_layer = of_bits.groupby("layer")
            is_single = of_bits["run"].nunique() == 1
            low, high = (
                ("step_size_min", "step_size_max")
                if is_single
                else ("step_size", "step_size")
            )
            table = pd.DataFrame(
                {
                    "median": by_layer["step_size"].median(),
                    "low": by_layer[low].min(),
                    "high": by_layer[high].max(),
                }
            ).reindex(names)
            places, color = np.arange(len(names)), palette[bits]
            axis.plot(places, table["median"], ".-", color=color, label=bits)
            axis.fill_between(
                places, table["low"], table["high"], color=color, alpha=0.18
            )
        axis.set_yscale("log")
        axis.set_ylabel("bin width")
        axis.set_xticks(np.arange(len(names)), names)
        axis.tick_params(axis="x", labelrotation=60, labelsize="small")
        drawn.append(figure)
    return drawn


def _in_order(rows: pd.DataFrame) -> list[str]:
    """Returns the layers as they follow each other, of the deepest run first.

    Layers that only shallower runs have come last.
    """
    depths = rows.groupby("run")["layer"].size()
    deepest = rows[rows["run"] == depths.idxmax()]["layer"]
    return list(dict.fromkeys([*deepest, *rows["layer"]]))


def noise_powers(
    layers: pd.DataFrame, palette: dict[str, str]
) -> matplotlib.figure.Figure:
    """Measured noise power of each layer against the prediction of theory."""
    figure, axis = panel()
    figure.set_figwidth(_SIZE[0])
    powers = layers[["predicted_noise_power", "noise_power"]]
    positive = layers[(powers > 0).all(axis=1)]
    for bits, rows in positive.groupby("bits", sort=False):
        axis.loglog(
            rows["predicted_noise_power"],
            rows["noise_power"],
            "o",
            markersize=3.5 if are_many(len(positive)) else 5.0,
            markeredgewidth=0,
            alpha=0.7,
            color=palette[bits],
            rasterized=are_many(len(positive)),
        )
    if len(positive):
        ends = [powers[powers > 0].min().min(), powers.max().max()]
        axis.loglog(ends, ends, color=GREY, linewidth=0.8)
    axis.set_xlabel("predicted noise power: sum of s² / 12")
    axis.set_ylabel("measured")
    return figure


def data_uri(figure: matplotlib.figure.Figure) -> str:
    """Returns a figure as an SVG inside a data URI; see `svg`."""
    encoded = base64.b64encode(svg(figure).encode()).decode()
    return f"data:image/svg+xml;base64,{encoded}"


def svg(figure: matplotlib.figure.Figure) -> str:
    """Returns a figure as an SVG without a background.

    What is black in the figure takes the color of the text of a page: it is
    black where the reader likes light pages, and white where dark ones.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "qgen"}
    ):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            dpi=_DPI,
            metadata={"Date": None},
        )
    return _themed(buffer.getvalue())


_FONTS = re.compile(r"'DejaVu Sans'[^;\"]*sans-serif")
_THEME = """<style>
svg { color: #1c2127; fill: currentColor }
@media (prefers-color-scheme: dark) { svg { color: #dfe3e8 } }
</style>"""


def _themed(svg: str) -> str:
    start = svg.index("<svg")
    inside = svg.index(">", start) + 1
    body = svg[inside:].replace("#000000", "currentColor")
    # the font that measured the text is seldom there; the page's always is
    body = _FONTS.sub("system-ui, sans-serif", body)
    return svg[start:inside] + _THEME + body
