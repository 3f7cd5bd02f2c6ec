"""Tables of a report, against numbers found by hand."""

import numpy as np
import pandas as pd
import pytest

from qgen_tf.study.reporting import report_tables
from tests.study.reporting import report_records


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [
        ([], 2, ""),
        ([np.nan], 2, ""),
        ([1.0], 2, "1.00"),
        ([1.0], None, "1"),
        # standard deviation sqrt(2), of the mean 1
        ([1.0, 3.0], 2, "2.00 ± 1.00"),
        ([1.0, 3.0, np.nan], None, "2.0 ± 1.0"),
        ([100.0, 300.0], None, "200 ± 100"),
        ([0.01, 0.03], None, "0.020 ± 0.010"),
        ([1e-9, 3e-9], None, "2e-09 ± 1e-09"),
        ([2.0, 2.0], None, "2 ± 0"),
    ],
)
def test_mean_with_its_standard_error(values, digits, text):
    assert report_tables.mean(pd.Series(values, dtype=float), digits) == text


def test_the_design_has_what_varies():
    frame = report_records.records(num_floats=12)
    table = report_tables.design(frame).set_index("hyper-parameter")
    assert table["values"].to_dict() == {
        "width": "16, 32",
        "learning rate": "0.001, 0.003, 0.01",
        "bits": "float, w8a8, w4a8, w2a8",
        "seed": "0, 1",
    }
    assert table["float models each"].to_dict() == {
        "width": "6",
        "learning rate": "4",
        "bits": "12",
        "seed": "6",
    }
    shared = report_tables.constants(frame)
    assert shared["depth"] == "3"
    assert shared["training examples"] == "1347"
    assert shared["quantizer"] == "lsq"
    assert not {"width", "bits", "seed", "learning rate"} & shared.keys()


def test_many_values_are_summed_up():
    frame = report_records.records(num_floats=20).assign(
        weight_decay=lambda rows: rows.groupby("twin_of").ngroup() * 0.5
    )
    table = report_tables.design(frame).set_index("hyper-parameter")
    assert table["values"]["weight decay"] == "20 values from 0 to 9.5"


def test_a_float_model_alone_has_no_quantizer():
    frame = report_records.records(num_floats=1).iloc[:1]
    assert len(report_tables.design(frame)) == 0
    assert "quantizer" not in report_tables.constants(frame)


def test_outcomes_by_model_and_bits():
    frame = pd.concat(
        [
            report_records.records(num_floats=3),
            report_records.records(num_floats=2, model="cifar_vit", seed=1),
        ]
    )
    table = report_tables.outcomes(frame, "accuracy")
    assert list(table["model"]) == ["nin"] * 4 + ["cifar_vit"] * 4
    assert list(table["bits"]) == ["float", "w8a8", "w4a8", "w2a8"] * 2
    assert list(table["models"]) == [3] * 4 + [2] * 4
    chosen = frame[(frame["model"] == "nin") & (frame["bits"] == "w4a8")]
    gaps = chosen["gap"].to_numpy()
    error = gaps.std(ddof=1) / np.sqrt(3)
    assert table["model: gap [points]"][2] == f"{gaps.mean():.2f} ± {error:.2f}"
    losses = report_tables.outcomes(frame, "loss")
    assert losses["file: test [nats]"][2].startswith(
        f"{chosen['file_test_loss'].mean():.4f} ± "
    )


def test_flatness_of_many_models():
    frame = report_records.records(num_floats=4)
    table = report_tables.flatness(frame).set_index("measure")
    assert list(table.columns) == [
        *("unit", "flatter is"),
        *("float", "w8a8", "w4a8", "w2a8"),
    ]
    assert table.loc["average sharpness", "flatter is"] == "less"
    assert table.loc["pac bayes sigma", "flatter is"] == "more"
    assert table.loc["generalization bound", "flatter is"] == ""
    assert table.loc["regularization hessian", "float"] == ""
    sharpness = frame.loc[frame["bits"] == "w2a8", "average_sharpness"]
    assert table.loc["average sharpness", "w2a8"] == report_tables.mean(
        sharpness
    )


def test_flatness_of_one_model_has_the_error_of_its_draws():
    frame = report_records.records(num_floats=1).astype(
        {"pac_bayes_sigma_converged": "boolean"}
    )
    first = frame.index[0]
    frame.loc[first, "average_sharpness"] = 0.5
    frame.loc[first, "average_sharpness_standard_error"] = 0.013
    frame.loc[first, "pac_bayes_sigma"] = 2.0
    frame.loc[first, "pac_bayes_sigma_standard_error"] = 0.0
    frame.loc[first, "pac_bayes_sigma_converged"] = False
    table = report_tables.flatness(frame).set_index("measure")
    assert table.loc["average sharpness", "float"] == "0.500 ± 0.013"
    assert table.loc["pac bayes sigma", "float"] == "2 (bound hit)"


def test_distorted_has_a_row_for_each_model_and_set():
    frame = report_records.records(num_floats=2)
    rows = report_tables.distorted(frame)
    assert len(rows) == len(frame) * 4
    fog = rows[(rows["kind"] == "fog") & (rows["severity"] == 5)]
    for column, name in (
        ("gap", "corrupted_fog_5_gap"),
        ("loss_gap", "corrupted_fog_5_loss_gap"),
        ("file_accuracy", "file_corrupted_fog_5_accuracy"),
    ):
        assert fog[column].tolist() == frame[name].tolist()
    assert set(rows["kind"]) == {"fog", "gaussian_noise"}


def test_sets_of_one_model_are_averaged_before_models_are():
    rows = pd.DataFrame(
        {
            "twin_of": ["a", "a", "b", "b"],
            "bits": "float",
            "kind": ["fog", "snow"] * 2,
            "severity": 3,
            **{
                f"{prefix}{name}": [1.0, 3.0, 2.0, 6.0]
                for prefix in ("", "file_")
                for name in ("accuracy", "loss", "gap", "loss_gap")
            },
        }
    )
    bits = ["float"]
    table = report_tables.distorted_by(rows, ["severity"], bits)
    # means 2 and 4 of the two models
    assert table["model: gap [points]"].tolist() == ["3.00 ± 1.00"]
    table = report_tables.distorted_by(rows, ["kind", "severity"], bits)
    assert table["kind"].tolist() == ["fog", "snow"]
    assert table["file: gap [points]"].tolist() == [
        "1.50 ± 0.50",
        "4.50 ± 1.50",
    ]


def test_without_distorted_sets_there_is_no_row():
    frame = report_records.records(num_floats=1)
    frame = frame[[name for name in frame if "corrupted" not in name]]
    assert report_tables.distorted(frame).empty


def test_verification_counts_verdicts():
    frame = report_records.records(num_floats=4)
    table = report_tables.verification(frame).set_index("bits")
    # two clusters are "same", one "cannot tell", one "different"
    for verdict, count in (("same", 2), ("cannot tell", 1), ("different", 1)):
        assert (table[verdict] == count).all()
    chosen = frame[frame["bits"] == "w2a8"]
    row = table.loc["w2a8"]
    assert row["largest [points]"] == chosen["gap_difference"].abs().max()
    assert row["least [%]"] == chosen["argmax_agreement"].min()
    assert row["file [kB]"] == "27.7 ± 0.0"


def test_columns_that_are_not_there_are_left_out():
    frame = report_records.records(num_floats=1).drop(columns="latency_ms")
    assert "latency [ms]" not in report_tables.every_model(frame)
    assert report_tables.every_model(frame)["bits"].tolist() == [
        *("float", "w8a8", "w4a8", "w2a8")
    ]
