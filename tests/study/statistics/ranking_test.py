"""The ranking of measures on a grid where their worth is known."""

import numpy as np
import pandas as pd
import pytest

from qgen_tf import errors
from qgen_tf.measures import MEASURES
from qgen_tf.study.statistics.orientation import FLATNESS, LARGER_IS_BETTER
from qgen_tf.study.statistics.ranking import ranking
from tests.study.statistics.grids import grid

AXES = ["width", "bits"]


@pytest.fixture(scope="module")
def records():
    """Twins of 5 bits at each of 4 widths and 3 seeds."""
    records = grid(
        repeats=3,
        width=(8, 16, 32, 64),
        bits=("float", "w8a8", "w4a8", "w3a8", "w2a8"),
    )
    records["twin_of"] = records["width"] * 10 + records["seed"]
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2, len(records)))
    return records.assign(
        gap=lambda frame: 5.0 * frame["gap"] + frame["width"],
        average_sharpness=lambda frame: frame["gap"] + noise[0],
        pac_bayes_sigma=lambda frame: -frame["gap"],
        parameter_norm=1.0 * records["width"],
        path_norm=noise[1],
    )


@pytest.fixture(scope="module")
def table(records):
    return ranking(records, axes=AXES, num_permutations=499)


def test_measures_are_ranked_by_their_worth(table):
    assert table["measure"].tolist()[:2] == [
        "pac_bayes_sigma",
        "average_sharpness",
    ]
    assert set(table["measure"]) == {
        "pac_bayes_sigma",
        "average_sharpness",
        "parameter_norm",
        "path_norm",
    }
    assert table["psi"].is_monotonic_decreasing


def test_an_oracle_is_perfect_however_it_points(table):
    oracle = table.set_index("measure").loc["pac_bayes_sigma"]
    assert oracle["direction"] == -1
    assert oracle["tau"] == oracle["psi"] == oracle["psi_bits"] == 1.0
    assert oracle["information"] == pytest.approx(1.0)
    assert oracle["sign_error_worst"] == oracle["sign_error_mean"] == 0.0
    assert oracle["tau_low"] == oracle["tau_high"] == 1.0
    assert oracle["holm_p_value"] < 0.05
    assert oracle["num_models"] == 60 and oracle["num_clusters"] == 12
    # each pair of 4 widths and of 5 bits
    assert oracle["num_environments"] == 6 + 10


def test_a_hyperparameter_in_disguise_is_found_out(table):
    width = table.set_index("measure").loc["parameter_norm"]
    assert width["tau"] > 0.5
    assert width["psi_bits"] == 0.0
    assert width["sign_error_worst"] == 0.5
    assert width["information"] == pytest.approx(0.0, abs=1e-9)
    assert "width" in width["information_given"]


def test_noise_is_noise(table):
    noise = table.set_index("measure").loc["path_norm"]
    assert noise["tau_low"] < 0.0 < noise["tau_high"]
    assert noise["holm_p_value"] >= noise["p_value"] > 0.02
    assert noise["sign_error_worst"] > 0.6
    assert noise["worst_environment"].split(":")[0] in AXES


def test_p_values_are_corrected_for_all_measures(table):
    assert (table["holm_p_value"] >= table["p_value"]).all()
    least = table["p_value"].min()
    assert table["holm_p_value"].min() == pytest.approx(4 * least)


def test_models_without_the_measure_are_left_out(records):
    some = records.copy()
    some.loc[some.index[:10], "average_sharpness"] = np.nan
    some.loc[some.index[3:], "path_norm"] = np.inf
    found = ranking(
        some,
        measures=["average_sharpness", "path_norm"],
        axes=AXES,
        num_permutations=9,
    )
    assert found["measure"].tolist() == ["average_sharpness"]
    assert found["num_models"].tolist() == [50]


def test_gaps_are_weighed_by_the_size_of_the_test_set(records):
    settings = {"measures": ["path_norm"], "axes": AXES, "num_permutations": 9}
    few = ranking(records, num_test=200, **settings)
    many = ranking(records, num_test=10**6, **settings)
    assert few["num_environments"].item() < many["num_environments"].item()
    assert many["num_environments"].item() == 16


def test_axes_are_those_that_vary(records):
    found = ranking(records, measures=["path_norm"], num_permutations=9)
    assert {"psi_width", "psi_bits"} <= set(found)
    assert "psi_depth" not in found


def test_a_design_without_a_grid_has_a_tau_alone(records):
    found = ranking(
        records[records["bits"] == "float"].assign(
            width=np.linspace(8, 64, 12)
        ),
        measures=["path_norm"],
        axes=["width"],
        num_permutations=9,
    )
    assert found["num_environments"].item() == 0
    assert np.isfinite(found["tau"].item())


def test_what_is_missing_is_named(records):
    with pytest.raises(errors.DataError, match="no column 'hessian_trace'"):
        ranking(records, measures=["hessian_trace"], axes=AXES)
    with pytest.raises(errors.DataError, match="4 models or more"):
        ranking(records.head(3), axes=AXES)
    with pytest.raises(errors.DataError, match="no column 'twin_of'"):
        ranking(pd.DataFrame({"gap": [1.0]}))


def test_orientations_are_of_measures_that_exist():
    assert set(FLATNESS) | set(LARGER_IS_BETTER) <= set(MEASURES)
    assert len(set(FLATNESS)) == len(FLATNESS)
