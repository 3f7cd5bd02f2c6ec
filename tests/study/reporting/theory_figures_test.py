"""Figures of the theory show the numbers that they are given."""

import dataclasses
import io

import numpy as np
import pytest

from qgen_tf.measures.density import SpectralDensity
from qgen_tf.measures.noise import LayerNoise
from qgen_tf.measures.predicted_rise import ALL_LAYERS, LossRise
from qgen_tf.study.reporting.theory_figures import (
    bin_width_figure,
    density_figure,
    rise_figure,
)


def _noise(layer, bits, width):
    return LayerNoise(
        layer=layer,
        num_bits=bits,
        num_weights=10,
        step_size=width,
        step_size_min=width / 2,
        step_size_max=width * 3,
        predicted_noise_power=1.0,
        noise_power=1.0,
        uniform_distance=0.0,
        clipped=0.0,
        weight_correlation=0.0,
    )


def _density(scale):
    eigenvalues = np.linspace(-1.0, 5.0, 61)
    density = scale * np.exp(-(eigenvalues**2))
    return SpectralDensity(
        eigenvalues=eigenvalues,
        density=density,
        standard_error=0.1 * density,
        nodes=np.array([0.0, 5.0]),
        weights=np.array([0.9, 0.1]),
        num_weights=100,
        num_products=20,
    )


def test_a_density_is_drawn_for_each_model():
    densities = {"float": _density(1.0), "w4a8": _density(0.5)}
    figure = density_figure(densities)
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == list(densities)
    for line, found in zip(axis.lines, densities.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), found.eigenvalues)
        np.testing.assert_array_equal(line.get_ydata(), found.density)
    assert axis.get_yscale() == "log"
    assert axis.get_ylim() == pytest.approx((1e-5, 10.0))


def _network(bits, widths):
    return [
        _noise(f"conv{index}", bits, width)
        for index, width in enumerate(widths)
    ]


def _rise(layer, bits, scale=1.0, measured=1.5):
    return LossRise(
        layer=layer,
        num_bits=bits,
        step_size=0.1,
        hessian=1.1 * scale,
        hessian_error=0.1 * scale,
        gauss_newton=1.0 * scale,
        gauss_newton_error=0.05 * scale,
        simulated=2.0 * scale,
        simulated_error=0.2 * scale,
        noise_deviation=0.5 * scale,
        measured=measured * scale,
    )


def _rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_a_panel_for_each_network_and_a_line_for_each_number_of_bits():
    figure = bin_width_figure(
        {
            "NiN": {
                2: _network(2, [0.5, 0.25]),
                8: _network(8, [0.01, 0.02]),
            },
            "ResNet-18": {4: _network(4, [0.1, 0.2, 0.3])},
        }
    )
    first, second = figure.axes
    assert first.get_title() == "NiN"
    assert second.get_title() == "ResNet-18"
    assert first.get_yscale() == second.get_yscale() == "log"
    wide, narrow = first.lines
    assert [line.get_label() for line in first.lines] == ["8 bits", "2 bits"]
    # bits have their colour in all panels, and one place in the legend
    (other,) = second.lines
    colors = {line.get_color() for line in (wide, narrow, other)}
    assert len(colors) == 3
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert sorted(texts) == ["2 bits", "4 bits", "8 bits"]
    np.testing.assert_array_equal(wide.get_ydata(), [0.01, 0.02])
    np.testing.assert_array_equal(narrow.get_ydata(), [0.5, 0.25])
    names = [tick.get_text() for tick in second.get_xticklabels()]
    assert names == ["conv0", "conv1", "conv2"]
    # the shade reaches from the smallest to the largest channel
    shade = second.collections[0].get_paths()[0].vertices
    assert shade[:, 1].min() == 0.05
    assert shade[:, 1].max() == pytest.approx(0.9)
    assert _rendered(figure)


def test_a_deep_network_has_numbers_for_names():
    figure = bin_width_figure({"deep": {8: _network(8, [0.1] * 54)}})
    _rendered(figure)
    (axis,) = figure.axes
    names = [tick.get_text() for tick in axis.get_xticklabels()]
    assert 2 < len(names) < 20
    assert not any("conv" in name for name in names)


def _points(axis):
    """Maps labels to the heights of their points, and of their bars."""
    found = {}
    for bars in axis.containers:
        line, _, (segments,) = bars.lines
        found[bars.get_label()] = (
            line.get_ydata(),
            [np.ptp(segment[:, 1]) / 2 for segment in segments.get_segments()],
        )
    return found


def test_rises_by_bits():
    rows = [_rise(ALL_LAYERS, 8, 1e-4), _rise(ALL_LAYERS, 2, 1.0)]
    figure = rise_figure(rows)
    axis, ratios = figure.axes
    assert axis.get_yscale() == "log"
    assert axis.get_xlabel() == ratios.get_xlabel() == "bits"
    names = [tick.get_text() for tick in axis.get_xticklabels()]
    assert names == ["8", "2"]
    for label, value, bar in (
        ("Hessian", 1.1, 0.1),
        ("Gauss-Newton", 1.0, 0.05),
        ("uniform noise", 2.0, 0.2),
        ("rounding", 1.5, 0.5),
    ):
        heights, bars = _points(axis)[label]
        np.testing.assert_allclose(heights, [value * 1e-4, value])
        np.testing.assert_allclose(bars, [bar * 1e-4, bar])
    heights, bars = _points(ratios)["Hessian"]
    np.testing.assert_allclose(heights, [0.55, 0.55])
    # relative errors of 1/11 and 1/10 add up in squares
    error = 0.55 * np.hypot(1 / 11, 1 / 10)
    np.testing.assert_allclose(bars, [error, error])
    assert _rendered(figure)


def test_rises_by_layer_and_one_below_zero():
    figure = rise_figure([_rise("conv", 4), _rise("dense", 4, measured=-0.3)])
    axis, _ = figure.axes
    assert axis.get_xlabel() == "layer"
    names = [tick.get_text() for tick in axis.get_xticklabels()]
    assert names == ["conv", "dense"]
    above, below = (bars.lines[0] for bars in axis.containers[-2:])
    np.testing.assert_array_equal(above.get_ydata(), [1.5])
    np.testing.assert_array_equal(below.get_ydata(), [0.3])
    assert below.get_markerfacecolor() == "none"
    assert above.get_markerfacecolor() != "none"
    assert _rendered(figure)


def test_layers_of_several_bits_have_no_number():
    figure = rise_figure(
        [dataclasses.replace(_rise(ALL_LAYERS, 4), num_bits=None)]
    )
    (name,) = figure.axes[0].get_xticklabels()
    assert name.get_text() == "mixed"
    assert _rendered(figure)
