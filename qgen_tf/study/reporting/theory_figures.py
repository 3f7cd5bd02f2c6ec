"""Plots of the theory: bin widths, and the rise in loss that they predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from qgen_tf.measures.density import SpectralDensity
from qgen_tf.measures.noise import LayerNoise
from qgen_tf.measures.predicted_rise import LossRise

_PANEL = (4.2, 3.6)
_MOST_NAMES = 16  # more names of layers than that cannot be read
_TOLERANCE = 0.2  # within which a prediction counts as good
_FORMS = {"hessian": "Hessian", "gauss_newton": "Gauss-Newton"}


def bin_width_figure(
    rows: Mapping[str, Mapping[int, Sequence[LayerNoise]]],
) -> matplotlib.figure.Figure:
    """Bin width of each layer, a panel for each network, a line for each bits.

    The figure 1 of QGen (arXiv 2404.11769). Lines are means over channels, and
    the shade around them reaches from the smallest to the largest channel.

    Args:
      rows: label of a network, such as "ResNet-18", to its number of bits, to
        its layers in their order.
    """
    figure, axes = _panels(len(rows))
    choices = sorted({bits for networks in rows.values() for bits in networks})
    colors = {bits: f"C{index}" for index, bits in enumerate(choices[::-1])}
    for axis, (label, networks) in zip(axes, rows.items(), strict=True):
        for bits, layers in sorted(networks.items(), reverse=True):
            places = np.arange(len(layers))
            means, lows, highs = (
                [getattr(layer, field) for layer in layers]
                for field in ("step_size", "step_size_min", "step_size_max")
            )
            color = colors[bits]
            axis.plot(places, means, ".-", color=color, label=f"{bits} bits")
            axis.fill_between(places, lows, highs, color=color, alpha=0.15)
        _name(axis, [layer.layer for layer in layers], "layer")
        axis.set_yscale("log")
        axis.set_title(label)
    axes[0].set_ylabel("bin width")
    _legend(figure, axes)
    return figure


def density_figure(
    densities: Mapping[str, SpectralDensity],
) -> matplotlib.figure.Figure:
    """How the eigenvalues of Hessians are distributed, a line for each model.

    The density spans decades: most eigenvalues are near zero, those that make
    a minimum sharp are few. The shade is one standard error.

    Args:
      densities: label of a model to its density.
    """
    figure, (axis,) = _panels(1)
    for label, found in densities.items():
        (line,) = axis.plot(
            found.eigenvalues, found.density, lw=1.0, label=label
        )
        axis.fill_between(
            found.eigenvalues,
            found.density - found.standard_error,
            found.density + found.standard_error,
            color=line.get_color(),
            alpha=0.2,
            lw=0.0,
        )
    size = next(iter(densities.values())).num_weights
    highest = max(found.density.max() for found in densities.values())
    axis.set_yscale("log")
    # of itself it would make room above for what is cut off below
    axis.set_ylim(1e-3 / size, 10 * highest)
    axis.set_xlabel("eigenvalue [nats / weight²]")
    axis.set_ylabel("density [weight² / nats]")
    _legend(figure, [axis])
    return figure


def rise_figure(rows: Sequence[LossRise]) -> matplotlib.figure.Figure:
    """The predicted rise in loss beside the simulated and the measured.

    The left panel has the rises, those below zero as open circles at their
    magnitude. Bars are standard errors; that of what is measured is the
    standard deviation of the rise under one noise, which rounding is. The
    right panel has the predictions in units of the simulation, and a band of
    20 % around it.

    Args:
      rows: of `loss_rises`, such as all layers at each number of bits, or each
        layer at one.
    """
    figure, (axis, ratios) = _panels(2)
    places = np.arange(len(rows))
    simulated, simulated_error = _column(rows, "simulated")
    for shift, (field, label) in zip((-0.2, -0.1), _FORMS.items(), strict=True):
        values, deviations = _column(rows, field)
        axis.errorbar(
            places + shift, values, deviations, fmt=".", label=label, capsize=2
        )
        relative = np.hypot(
            deviations / values, simulated_error / simulated
        ) * np.abs(values / simulated)
        ratios.errorbar(
            places + shift,
            values / simulated,
            relative,
            fmt=".",
            label=label,
            capsize=2,
        )
    axis.errorbar(
        places,
        simulated,
        simulated_error,
        fmt="_",
        color="black",
        label="uniform noise",
        capsize=2,
    )
    measured, deviation = _column(rows, "measured", error="noise_deviation")
    for chosen, face, label in (
        (measured > 0, "C3", "rounding"),
        (measured <= 0, "none", ""),
    ):
        axis.errorbar(
            places[chosen] + 0.15,
            np.abs(measured[chosen]),
            deviation[chosen],
            fmt="o",
            color="C3",
            markerfacecolor=face,
            markersize=4,
            label=label,
            capsize=2,
        )
    axis.set_yscale("log")
    axis.set_ylabel("rise in loss [nats]")
    _legend(figure, [axis])
    ratios.axhline(1.0, color="0.5", linewidth=0.8)
    ratios.axhspan(1 - _TOLERANCE, 1 + _TOLERANCE, color="0.5", alpha=0.15)
    ratios.set_ylim(bottom=0.0)
    ratios.set_ylabel("predicted / uniform noise")
    if len({row.layer for row in rows}) == 1:
        names, label = [str(row.num_bits or "mixed") for row in rows], "bits"
    else:
        names, label = [row.layer for row in rows], "layer"
    for panel in (axis, ratios):
        _name(panel, names, label)
    return figure


def _panels(
    count: int,
) -> tuple[matplotlib.figure.Figure, Sequence[matplotlib.axes.Axes]]:
    width, height = _PANEL
    figure = matplotlib.figure.Figure(
        figsize=(count * width, height), layout="constrained"
    )
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(
    figure: matplotlib.figure.Figure, axes: Sequence[matplotlib.axes.Axes]
) -> None:
    """Explains, above all panels, what is in some of them."""
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
    )


def _name(axis: matplotlib.axes.Axes, names: Sequence[str], label: str) -> None:
    """Names the places 0, 1, ... on the x axis, or numbers them if many."""
    axis.set_xlabel(label)
    if len(names) > _MOST_NAMES:
        axis.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(integer=True)
        )
        return
    axis.set_xticks(np.arange(len(names)), names)
    if max(map(len, names)) > 2:
        axis.tick_params(axis="x", labelrotation=60, labelsize="small")


def _column(
    rows: Sequence[LossRise], field: str, *, error: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of a field and their errors."""
    error = error or f"{field}_error"
    return (
        np.array([getattr(row, field) for row in rows]),
        np.array([getattr(row, error) for row in rows]),
    )
