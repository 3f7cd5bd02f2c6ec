"""Plots of a study: what is drawn is what was found."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from qgen_tf.study.reporting import figures, report_tables, study_figures
from tests.study.reporting import report_records

LABELS = ["float", "w8a8", "w4a8", "w2a8"]


@pytest.fixture(scope="module")
def frame():
    return report_records.records(num_floats=5)


def _axis(figure):
    (axis,) = figure.axes
    return axis


def test_bits_are_in_order_and_have_colors(frame):
    shuffled = frame.sample(frac=1.0, random_state=0)
    assert figures.by_bits(shuffled) == LABELS
    palette = figures.colors(shuffled)
    assert list(palette) == LABELS
    assert palette["float"] == figures.GREY
    assert len(set(palette.values())) == 4


def test_many_bits_have_as_many_colors():
    frame = pd.DataFrame(
        {"weight_bits": [32, *range(8, 0, -1)], "activation_bits": 8}
    )
    frame["bits"] = [f"w{bits}a8" for bits in frame["weight_bits"]]
    assert len(set(figures.colors(frame).values())) == 10  # and float


def test_outcomes_have_a_line_for_each_float_model_and_a_mean(frame):
    (figure,) = study_figures.outcomes(frame, {"gap": "the gap"})
    axis = _axis(figure)
    assert axis.get_title(loc="left") == "the gap"
    assert [text.get_text() for text in axis.get_xticklabels()] == LABELS
    (lines, *_) = axis.collections
    drawn = np.array([path.vertices[:, 1] for path in lines.get_paths()])
    by_cluster = frame.pivot(index="twin_of", columns="bits", values="gap")
    assert np.array_equal(drawn, by_cluster[LABELS].to_numpy())
    means = axis.lines[0].get_ydata()
    assert np.allclose(means, by_cluster[LABELS].mean())


def test_one_float_model_has_intervals_of_its_own():
    frame = report_records.records(num_floats=1)
    (figure,) = study_figures.outcomes(frame, {"gap": ""})
    bars = [bar.get_segments()[0][:, 1] for bar in _axis(figure).collections]
    expected = frame.set_index("bits")[["gap_low", "gap_high"]].loc[LABELS]
    assert np.allclose(bars, expected.to_numpy())


def test_a_measure_has_its_standard_error_for_an_interval():
    frame = report_records.records(num_floats=1)
    (figure,) = study_figures.outcomes(frame, {"average_sharpness": ""})
    bars = [bar.get_segments()[0][:, 1] for bar in _axis(figure).collections]
    expected = frame.set_index("bits").loc[LABELS]
    assert np.allclose(
        np.ptp(bars, axis=1),
        2.0 * expected["average_sharpness_standard_error"],
    )


def test_decades_are_asked_for(frame):
    frame = frame.assign(gap=np.geomspace(1.0, 100.0, len(frame)))
    for asked, scale in ((True, "log"), (False, "linear")):
        (figure,) = study_figures.outcomes(frame, {"gap": ""}, by_decades=asked)
        assert _axis(figure).get_yscale() == scale


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 11.0], True), ([1.0, 9.0], False), ([0.0, 9.0], False)],
)
def test_a_decade_needs_positive_values(values, expected):
    assert figures.spans_a_decade(np.array(values)) is expected


def test_changes_are_means_over_pairs_with_students_interval(frame):
    (figure,) = study_figures.changes(frame, {"gap": ""})
    values = frame.pivot(index="twin_of", columns="bits", values="gap")
    change = values["w2a8"] - values["float"]
    low, high = scipy.stats.t.interval(
        0.95, 4, loc=change.mean(), scale=change.sem()
    )
    bar = _axis(figure).collections[2].get_segments()[0][:, 1]
    assert np.allclose(bar, [low, high])


def test_scatters_have_a_point_for_each_known_model(frame):
    drawn = study_figures.scatters(
        frame, ["average_sharpness", "regularization_hessian"]
    )
    counts = [
        sum(len(line.get_xdata()) for line in _axis(figure).lines)
        for figure in drawn
    ]
    assert counts == [20, 15]  # a float model has no regularization


def test_a_scatter_needs_two_points(frame):
    single = frame.iloc[:1]
    assert study_figures.scatters(single, ["average_sharpness"]) == []


def test_correlations_have_their_intervals():
    ranking = pd.DataFrame(
        {
            "measure": ["sam_sharpness", "path_norm"],
            "tau": [0.5, -0.25],
            "tau_low": [0.25, -0.5],
            "tau_high": [0.75, 0.0],
        }
    )
    axis = _axis(study_figures.correlations(ranking))
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["path norm", "sam sharpness"]
    bars = [part[:, 0] for part in axis.collections[0].get_segments()]
    assert np.array_equal(bars, [[-0.5, 0.0], [0.25, 0.75]])


def test_distortions_have_a_panel_for_each_kind(frame):
    rows = report_tables.distorted(frame)
    drawn = study_figures.distortions(rows, figures.colors(frame))
    titles = [_axis(figure).get_title(loc="left") for figure in drawn]
    assert titles == ["fog", "gaussian noise"]
    line = _axis(drawn[0]).lines[0]
    floats = frame[frame["bits"] == "float"]
    assert line.get_xdata().tolist() == [1, 5]
    assert np.allclose(
        line.get_ydata(),
        floats[["corrupted_fog_1_gap", "corrupted_fog_5_gap"]].mean(),
    )


def _layers():
    return pd.DataFrame(
        [
            {
                "run": f"run-{run}",
                "model": "nin",
                "bits": "w4a8",
                "layer": layer,
                "step_size": width * scale,
                "step_size_min": width * scale / 2,
                "step_size_max": width * scale * 2,
                "noise_power": width**2,
                "predicted_noise_power": width**2,
            }
            for run, scale in enumerate((1.0, 2.0, 6.0))
            for layer, width in (("first", 0.1), ("last", 0.3))
        ]
    )


def test_bin_widths_are_medians_and_ranges_over_runs():
    palette = {"w4a8": "#123456"}
    (figure,) = figures.bin_widths(_layers(), palette)
    axis = _axis(figure)
    assert np.allclose(axis.lines[0].get_ydata(), [0.2, 0.6])
    (shade,) = axis.collections
    heights = shade.get_paths()[0].vertices[:, 1]
    assert np.isclose(heights.min(), 0.1) and np.isclose(heights.max(), 1.8)
    single = _layers()[lambda rows: rows["run"] == "run-0"]
    (figure,) = figures.bin_widths(single, palette)
    (shade,) = _axis(figure).collections
    heights = shade.get_paths()[0].vertices[:, 1]
    assert np.isclose(heights.min(), 0.05) and np.isclose(heights.max(), 0.6)


def test_layers_follow_the_deepest_run():
    rows = _layers()
    deep = (
        rows[rows["run"] == "run-2"]
        .iloc[[0, 0, 0]]
        .assign(layer=["first", "middle", "end"])
    )
    rows = pd.concat([rows[rows["run"] != "run-2"], deep])
    (figure,) = figures.bin_widths(rows, {"w4a8": "#123456"})
    names = [text.get_text() for text in _axis(figure).get_xticklabels()]
    assert names == ["first", "middle", "end", "last"]


def test_noise_powers_leave_out_what_no_logarithm_has():
    rows = _layers()
    rows.loc[0, "noise_power"] = 0.0
    points, _ = _axis(figures.noise_powers(rows, {"w4a8": "#123456"})).lines
    assert len(points.get_xdata()) == 5


def test_histories_show_every_run():
    runs = pd.DataFrame(
        {
            "run": ["a", "a", "b"],
            "bits": ["float", "float", "w4a8"],
            "epoch": [1, 2, 1],
            "loss": [2.0, 0.1, 1.0],
            "accuracy": [0.5, 0.9, 0.8],
        }
    )
    palette = {"float": "#111111", "w4a8": "#222222"}
    loss, accuracy = figures.histories(runs, palette)
    assert _axis(loss).get_yscale() == "log"
    assert _axis(accuracy).get_yscale() == "linear"
    lines, ends = _axis(accuracy).collections
    assert len(lines.get_paths()) == 2
    assert np.array_equal(ends.get_offsets(), [[2, 0.9], [1, 0.8]])


def test_many_shapes_are_pixels():
    lines = [np.zeros((2, 2))] * 201
    for number, expected in ((200, False), (201, True)):
        _, axis = figures.panel()
        figures.faint_lines(axis, lines[:number])
        assert axis.collections[0].get_rasterized() is expected
