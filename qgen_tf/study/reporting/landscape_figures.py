"""Plots of loss landscapes, those of several models on one scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib.colors
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from qgen_tf.measures.landscape import Landscape

_PANEL = (3.3, 3.2)
_NUM_LEVELS = 24
_COLOURS = "viridis"
_X, _Y = "x [filter norms]", "y [filter norms]"
_LOSS = "loss [nats]"

Landscapes = Mapping[str, Landscape]


def contours(landscapes: Landscapes) -> matplotlib.figure.Figure:
    """Contours of the loss on a plane, models side by side.

    Levels and colours are those of all models together, in geometric
    progression where the losses span more than a decade. A cross marks the
    weights. Grey is where the loss is not finite.

    Args:
      landscapes: label, such as "float" or "w8a8", to a plane.
    """
    norm, levels = _scale(landscapes.values())
    figure, axes = _panels(len(landscapes))
    for axis, (label, landscape) in zip(axes, landscapes.items(), strict=True):
        # contour takes the second coordinate, y, first
        losses = np.ma.masked_invalid(landscape.losses.T)
        grid = (landscape.coordinates, landscape.coordinates, losses)
        filled = axis.contourf(*grid, levels, norm=norm, cmap=_COLOURS)
        inside = levels[(losses.min() < levels) & (levels < losses.max())]
        if inside.size:
            axis.contour(*grid, inside, colors="black", linewidths=0.4)
        axis.plot(0.0, 0.0, "x", color="white")
        axis.set_facecolor("0.85")
        axis.set_aspect("equal")
        axis.set_title(label)
        axis.set_xlabel(_X)
    axes[0].set_ylabel(_Y)
    formatter = matplotlib.ticker.FuncFormatter(_number)
    figure.colorbar(filled, ax=list(axes), label=_LOSS, format=formatter)
    return figure


def surfaces(landscapes: Landscapes) -> matplotlib.figure.Figure:
    """The loss over a plane, models side by side, in three dimensions.

    Height and colour are on the scale of `contours`. A loss that is not finite
    is drawn at the largest that is.

    Args:
      landscapes: label to a plane.
    """
    norm, levels = _scale(landscapes.values())
    # axes in three dimensions have no logarithmic scale
    height, value = (np.log10, _power) if _is_log(norm) else (_same, _same)
    low, high = height(levels[[0, -1]])
    figure, axes = _panels(len(landscapes), projection="3d")
    for axis, (label, landscape) in zip(axes, landscapes.items(), strict=True):
        axis.plot_surface(
            *np.meshgrid(landscape.coordinates, landscape.coordinates),
            height(np.minimum(landscape.losses.T, levels[-1])),
            cmap=_COLOURS,
            norm=matplotlib.colors.Normalize(low, high),
            rcount=len(landscape.coordinates),
            ccount=len(landscape.coordinates),
        )
        axis.set_box_aspect(None, zoom=0.8)  # room for the labels
        axis.set_zlim(low, high)
        axis.locator_params(axis="x", nbins=4)
        axis.locator_params(axis="y", nbins=4)
        axis.zaxis.set_major_formatter(
            lambda position, _: _number(value(position))
        )
        axis.set_title(label)
        axis.set_xlabel(_X)
        axis.set_ylabel(_Y)
        axis.set_zlabel(_LOSS, labelpad=8)
    return figure


def lines(landscapes: Landscapes) -> matplotlib.figure.Figure:
    """Loss and accuracy along a line, all models over one another.

    Args:
      landscapes: label to a line.
    """
    norm, _ = _scale(landscapes.values())
    figure, (loss, accuracy) = _panels(2)
    for label, landscape in landscapes.items():
        for axis, values in (
            (loss, np.ma.masked_invalid(landscape.losses)),
            (accuracy, 100.0 * landscape.accuracies),
        ):
            axis.plot(landscape.coordinates, values, ".-", label=label)
    for axis, quantity in ((loss, _LOSS), (accuracy, "accuracy [%]")):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(_X)
        axis.set_ylabel(quantity)
    if _is_log(norm):
        loss.set_yscale("log")
    loss.legend(frameon=False)
    return figure


@dataclasses.dataclass(frozen=True)
class Style:
    """A way to draw landscapes.

    Attributes:
      num_directions: of each landscape.
      draw: label to landscape to figure.
    """

    num_directions: int
    draw: Callable[[Landscapes], matplotlib.figure.Figure]


STYLES = {
    "contour": Style(2, contours),
    "surface": Style(2, surfaces),
    "line": Style(1, lines),
}


def _panels(
    columns: int, **style: Any
) -> tuple[matplotlib.figure.Figure, np.ndarray]:
    width, height = _PANEL
    figure = matplotlib.figure.Figure(
        figsize=(width * columns + 0.6, height), layout="constrained"
    )
    grid = figure.subplots(1, columns, squeeze=False, subplot_kw=style)
    return figure, grid[0]


def _scale(
    landscapes: Iterable[Landscape],
) -> tuple[matplotlib.colors.Normalize, np.ndarray]:
    """Returns one colour scale for all landscapes and ascending levels."""
    losses = np.concatenate([scape.losses.ravel() for scape in landscapes])
    finite = losses[np.isfinite(losses)]
    low, high = finite.min(), finite.max()
    if low == high:
        high = low + 1.0  # flat: any scale does
    if 0 < 10 * low < high:
        levels = np.geomspace(low, high, _NUM_LEVELS)
        return matplotlib.colors.LogNorm(low, high), levels
    levels = np.linspace(low, high, _NUM_LEVELS)
    return matplotlib.colors.Normalize(low, high), levels


def _is_log(norm: matplotlib.colors.Normalize) -> bool:
    return isinstance(norm, matplotlib.colors.LogNorm)


def _same(value: Any) -> Any:
    return value


def _power(exponent: float) -> float:
    return 10.0**exponent


def _number(value: float, position: Any = None) -> str:
    """Returns the text of a tick."""
    del position
    return f"{value:.3g}"
