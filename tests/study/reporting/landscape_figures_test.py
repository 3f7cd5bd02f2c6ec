"""Figures of landscapes that are written out."""

import io

import matplotlib.projections
import numpy as np
import pytest

from qgen_tf.measures.landscape import Landscape
from qgen_tf.study.reporting import landscape_figures

AXES_3D = matplotlib.projections.get_projection_class("3d")

COORDINATES = np.linspace(-1.0, 1.0, 9)
X, Y = np.meshgrid(COORDINATES, COORDINATES, indexing="ij")


def _landscape(losses):
    losses = np.array(losses, np.float64)
    return Landscape(COORDINATES, losses, np.exp(-np.abs(losses)), {})


def _lines(axis):
    """The black contours of a panel, above the filled ones."""
    return [c for c in axis.collections if not c.filled]


def _rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_contours_lie_where_the_loss_is():
    figure = landscape_figures.contours({"float": _landscape(X)})
    axis, bar = figure.axes
    (lines,) = _lines(axis)
    assert axis.get_title() == "float"
    assert bar.get_ylabel() == "loss [nats]"
    assert axis.get_xlabel() == "x [filter norms]"
    assert axis.get_ylabel() == "y [filter norms]"
    # the loss is x: its contours are upright, at x = level
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        np.testing.assert_allclose(path.vertices[:, 0], level, atol=1e-12)
        assert np.ptp(path.vertices[:, 1]) == 2.0
    (cross,) = axis.lines
    assert (cross.get_xdata(), cross.get_ydata()) == ([0.0], [0.0])


def test_models_share_levels_and_colours():
    figure = landscape_figures.contours(
        {"float": _landscape(1 + X**2), "w2a8": _landscape(3 + Y**2)}
    )
    *axes, _ = figure.axes
    assert [axis.get_title() for axis in axes] == ["float", "w2a8"]
    levels = []
    for axis in axes:
        (filled,) = [c for c in axis.collections if c.filled]
        assert (filled.norm.vmin, filled.norm.vmax) == (1.0, 4.0)
        levels.append(filled.levels)
    np.testing.assert_array_equal(*levels)
    assert (levels[0][0], levels[0][-1]) == (1.0, 4.0)
    np.testing.assert_allclose(np.diff(levels[0], 2), 0.0, atol=1e-12)


def test_levels_are_geometric_where_losses_span_a_decade():
    figure = landscape_figures.contours(
        {"a": _landscape(0.01 * 10 ** (2 + X)), "b": _landscape(0.01 + X**2)}
    )
    (filled,) = [c for c in figure.axes[0].collections if c.filled]
    ratios = filled.levels[1:] / filled.levels[:-1]
    np.testing.assert_allclose(ratios, ratios[0])
    assert filled.levels[[0, -1]] == pytest.approx([0.01, 10.0])
    # a loss at or below zero has no logarithm
    figure = landscape_figures.contours({"a": _landscape(100 * X**2)})
    (filled,) = [c for c in figure.axes[0].collections if c.filled]
    np.testing.assert_allclose(np.diff(filled.levels, 2), 0.0, atol=1e-9)


@pytest.mark.parametrize("style", ["contour", "surface"])
def test_what_is_flat_or_not_finite_is_drawn(style):
    peak = np.where((X == 0) & (Y == 0), 1.0, np.inf)
    corner = np.where(X + Y > 1.5, np.inf, 2 + X)
    draw = landscape_figures.STYLES[style].draw
    assert _rendered(draw({"flat": _landscape(np.ones_like(X))}))
    figure = draw(
        {
            "peak": _landscape(peak),
            "corner": _landscape(corner),
            "flat": _landscape(np.full_like(X, 2.5)),
        }
    )
    assert _rendered(figure)
    if style == "contour":
        (filled,) = [c for c in figure.axes[1].collections if c.filled]
        assert filled.levels[[0, -1]].tolist() == [1.0, 3.0]
        assert not _lines(figure.axes[2])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_surfaces_stand_on_one_scale(scale, monkeypatch):
    drawn = []
    plot = AXES_3D.plot_surface

    def record(axis, *grid, **style):
        drawn.append(grid)
        return plot(axis, *grid, **style)

    monkeypatch.setattr(AXES_3D, "plot_surface", record)
    first, second = 1 + scale * (X + 1), 2 + Y
    second[0, 0] = np.inf
    figure = landscape_figures.surfaces(
        {"float": _landscape(first), "w2a8": _landscape(second)}
    )
    largest = max(1 + 2 * scale, 3.0)
    height = np.log10 if scale > 10 else lambda losses: losses
    for (x, y, z), loss in zip(
        drawn,
        (lambda x, y: 1 + scale * (x + 1), lambda x, y: 2 + y),
        strict=True,
    ):
        wanted = loss(x, y)
        if z is drawn[1][2]:
            wanted[0, 0] = largest
        np.testing.assert_allclose(z, height(wanted))
    for axis, title in zip(figure.axes, ("float", "w2a8"), strict=True):
        assert axis.get_title() == title
        assert axis.get_zlim() == pytest.approx(height([1.0, largest]))
        assert axis.get_zlabel() == "loss [nats]"
        text = axis.zaxis.get_major_formatter()(height(2.0))
        assert text == "2"


def test_lines_lie_over_one_another():
    losses = {"float": 0.1 + COORDINATES**2, "w2a8": 2 + COORDINATES}
    losses["w2a8"][0] = np.inf
    landscapes = {label: _landscape(line) for label, line in losses.items()}
    figure = landscape_figures.lines(landscapes)
    loss, accuracy = figure.axes
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["float", "w2a8"]
    for label, drawn, hits in zip(
        labels, loss.lines, accuracy.lines, strict=True
    ):
        np.testing.assert_array_equal(drawn.get_xdata(), COORDINATES)
        np.testing.assert_array_equal(
            np.ma.filled(drawn.get_ydata(), np.inf), losses[label]
        )
        np.testing.assert_allclose(
            hits.get_ydata(), 100 * np.exp(-losses[label])
        )
    assert loss.get_yscale() == "log"
    assert loss.get_ylabel() == "loss [nats]"
    assert accuracy.get_ylabel() == "accuracy [%]"
    assert accuracy.get_xlabel() == "x [filter norms]"
    near = {"float": _landscape(1 + COORDINATES**2)}
    assert landscape_figures.lines(near).axes[0].get_yscale() == "linear"


def test_styles_know_their_dimensions():
    plane, line = _landscape(1 + X**2 + Y**2), _landscape(1 + COORDINATES**2)
    for style in landscape_figures.STYLES.values():
        landscape = {1: line, 2: plane}[style.num_directions]
        assert b"float" in _rendered(style.draw({"float": landscape}))
