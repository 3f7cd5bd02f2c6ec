"""Plot of where a file diverges from its network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np

from qgen_tf.study.reporting import figures

if TYPE_CHECKING:
    from export.divergence import LayerDifference


def divergence_figure(
    layers: Sequence[LayerDifference],
) -> matplotlib.figure.Figure:
    """Difference of file and network, layer by layer.

    Args:
      layers: in the order of the network; the first one that differs is drawn
        in another color.
    """
    figure, (steps, shares) = figures.panels(2)
    figure.set_figheight(4.8)
    positions = np.arange(len(layers))
    first = next((layer for layer in layers if layer.max_steps), None)
    colors = ["C3" if layer is first else "C0" for layer in layers]
    largest = [layer.max_steps for layer in layers]
    steps.bar(positions, largest, color=colors, label="largest")
    steps.plot(
        positions,
        [layer.mean_steps for layer in layers],
        ".",
        color="0.2",
        label="mean",
    )
    shares.bar(
        positions, [100.0 * layer.share for layer in layers], color=colors
    )
    steps.set_ylabel("difference [steps]")
    shares.set_ylabel("values that differ [%]")
    steps.legend(**figures.LEGEND)
    for axis in (steps, shares):
        axis.set_ylim(bottom=0.0)
        axis.set_xticks(
            positions,
            [layer.layer for layer in layers],
            rotation=90,
            fontsize=min(8.0, 300.0 / max(len(layers), 1)),
        )
    return figure
