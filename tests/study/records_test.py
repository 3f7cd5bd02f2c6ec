"""Records: rows of run directories, their files, and what is refused."""

import json
import subprocess
import sys

import hypothesis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

import qgen_tf.study
from qgen_tf import errors
from qgen_tf.study import exporting, measuring, records, schema
from tests import tiny
from tests.study import fake_runs
from tests.study.reporting import report_records


@pytest.fixture
def config():
    return tiny.config()


@pytest.fixture
def runs(config, tmp_path):
    return [
        fake_runs.make(tmp_path / "runs", config, bits=bits)
        for bits in (None, (4, 8))
    ]


def test_a_row_says_what_the_run_is(runs):
    of_float, of_twin = map(records.record, runs)
    expected = {
        "run": runs[0].path.name,
        "name": "tiny",
        "twin_of": runs[0].path.name,
        "dataset": "digits",
        "model": "nin",
        "width": 8,
        "depth": 1,
        "dropout": 0.0,
        "learning_rate": 1e-2,
        "weight_decay": 1e-4,
        "batch_size": 64,
        "optimizer": "adamw",
        "augmentation": "none",
        "seed": 0,
        "stop_at_loss": 0.0,
        "num_train": 200,
        "num_test": 100,
        "parameters": 386,
        "quantizer": None,
        "bits": "float",
        "weight_bits": 32,
        "activation_bits": 32,
        "epochs": 3,
        "stopped_at_loss": None,
    }
    assert list(records.frame(runs))[: len(expected)] == list(expected)
    assert {name: of_float[name] for name in expected} == expected
    assert {
        name: of_twin[name]
        for name in expected
        if of_twin[name] != expected[name]
    } == {
        "run": runs[1].path.name,
        "quantizer": "lsq",
        "bits": "w4a8",
        "weight_bits": 4,
        "activation_bits": 8,
        "stopped_at_loss": 0.25,
    }


def test_a_row_says_what_was_found(runs):
    row = records.record(runs[1])
    expected = {
        "train_accuracy": 98.0,
        "test_loss": 0.5,
        "gap": 8.0,
        "gap_low": 7.0,
        "gap_high": 10.0,
        "loss_gap": -0.4,
        "file_train_accuracy": 97.0,
        "file_test_accuracy": 88.0,
        "file_test_loss": 0.5,
        "file_gap": 9.0,
        "file_gap_high": 11.0,
        "file_loss_gap": -0.4,
        "gap_difference": 1.0,
        "gap_difference_low": 0.0,
        "loss_gap_difference_high": 2.0,
        "verdict": "same",
        "margin": 0.5,
        "equivalence_p_value": 0.01,
        "mcnemar_p_value_train": 0.25,
        "mcnemar_p_value_test": 0.375,
        "argmax_agreement": 99.0,
        "max_steps": 0.75,
        "max_steps_deployed": 0.25,
        "kilobytes": 4.5,
        "latency_ms": 0.25,
        "average_sharpness": 0.125,
        "average_sharpness_standard_error": 0.5,
        "average_sharpness_converged": True,
        "noise_power": 1.0,
        "predicted_noise_power": 0.5,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert records.record(runs[0])["noise_power"] == 0.0


def test_corruptions_and_times_are_there_if_the_run_has_them(runs):
    before = records.record(runs[0])
    assert not [n for n in before if "corrupted" in n or "seconds" in n]
    fake_runs.distort(runs[0])
    runs[0].write_json("seconds.json", {"train": 60.0, "corruptions": 1.5})
    row = records.record(runs[0])
    assert {name: row[name] for name in row.keys() - before.keys()} == (
        pytest.approx(
            {
                "corrupted_fog_3_accuracy": 80.0,
                "corrupted_fog_3_loss": 1.5,
                "corrupted_fog_3_gap": 98.0 - 80.0,
                "corrupted_fog_3_loss_gap": 0.1 - 1.5,
                "file_corrupted_fog_3_accuracy": 79.0,
                "file_corrupted_fog_3_loss": 1.75,
                "file_corrupted_fog_3_gap": 97.0 - 79.0,
                "file_corrupted_fog_3_loss_gap": 0.1 - 1.75,
                "seconds_train": 60.0,
                "seconds_corruptions": 1.5,
            }
        )
    )


def test_runs_of_earlier_versions_are_read(runs):
    for run in runs:
        written = run.read_json("config.json")
        del written["training"]["stop_at_loss"]
        run.write_json("config.json", written)
        facts = run.read_json("train.json")
        del facts["stopped_at_loss"]
        run.write_json("train.json", facts)
        verified = run.read_json(exporting.VERIFICATION_FILE)
        del verified["latency_ms"]
        run.write_json(exporting.VERIFICATION_FILE, verified)
    frame = records.frame(runs)
    assert frame["twin_of"].nunique() == 1
    assert frame["latency_ms"].isna().all()
    assert frame["stopped_at_loss"].isna().all()
    assert (frame["stop_at_loss"] == 0.0).all()


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({}, "none"),
        ({"flip": True, "crop_padding": 4}, "flip+crop4"),
        ({"random_resized_crop": 0.08, "flip": True}, "flip+resized0.08"),
        (
            {"rand_augment": 0.5, "mixup": 0.2, "cutmix": 1.0},
            "rand0.5+mixup0.2+cutmix1",
        ),
    ],
)
def test_the_label_of_an_augmentation(config, tmp_path, fields, label):
    config.dataset.update(fields)
    run = fake_runs.make(tmp_path, config)
    assert records.record(run)["augmentation"] == label


def test_arguments_of_models_are_columns(config, tmp_path):
    swin = tiny.config()
    swin.model = {"name": "cifar_swin", "depths": [2, 2], "patch_size": 2}
    frame = records.frame(
        [fake_runs.make(tmp_path, each) for each in (config, swin)]
    )
    assert "depths" not in frame
    assert frame["patch_size"].isna().tolist() == [True, False]
    assert frame["width"].isna().tolist() == [False, True]


def test_noise_has_a_row_for_each_quantized_layer(runs):
    noise = records.noise(runs)
    assert set(noise["run"]) == {runs[1].path.name}
    assert set(noise["bits"]) == {"w4a8"} and len(noise) == 2
    assert list(noise)[:4] == ["run", "bits", "layer", "num_bits"]


def test_quantization_has_a_row_for_each_layer(runs):
    (row,) = records.quantization(runs).to_dict("records")
    assert (row["layer"], row["levels_used"], row["bits"]) == (
        *("conv", 15, "w4a8"),
    )
    assert records.quantization(runs[:1]).empty
    (runs[1].path / measuring.QUANTIZATION_FILE).unlink()
    with pytest.raises(errors.RunDirectoryError, match="measure the run again"):
        records.quantization(runs)


def test_unfinished_runs_are_named(config, runs, tmp_path):
    workdir = tmp_path / "runs"
    assert records.survey(workdir).warning == ""
    found = {}
    for seed, (file, lacks) in enumerate(
        (
            ("train.json", "not trained"),
            ("measures.json", "not measured"),
            ("export/verification.json", "not verified"),
        ),
        start=1,
    ):
        config.seed = seed
        run = fake_runs.make(workdir, config)
        (run.path / file).unlink()
        found[run.path.name] = lacks
    config.seed = 4
    stale = fake_runs.make(workdir, config)
    fake_runs.distort(stale, digest="another")
    found[stale.path.name] = "corrupted test sets are of another file"
    survey = records.survey(workdir, "tiny")
    assert survey.unfinished == found
    assert {run.path for run in survey.finished} == {run.path for run in runs}
    assert survey.warning.startswith("4 of 6 runs are not finished: tiny-float")
    assert f"{stale.path.name} (corrupted test" in survey.warning
    with pytest.warns(UserWarning, match="4 of 6 runs are not finished"):
        assert len(records.load(workdir)) == 2


def test_of_many_unfinished_runs_some_are_named():
    lacks = {f"run{number}": "not trained" for number in range(7)}
    warning = records.Found([], lacks).warning
    assert warning.startswith("7 of 7 runs") and "run4" in warning
    assert warning.endswith("(not trained) and 2 more.")
    assert "run5" not in warning


def test_a_name_of_no_finished_run(runs, tmp_path):
    for folder, name in (
        (tmp_path / "runs", "other"),
        (tmp_path / "nowhere", ""),
    ):
        with pytest.raises(errors.RunDirectoryError, match="qgen-sweep"):
            records.find(folder, name)


def test_a_damaged_run_is_named(runs):
    (runs[0].path / "measures.json").write_text("{")
    with pytest.raises(errors.RunDirectoryError, match="measures.json is dam"):
        records.record(runs[0])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("measures.json gap accuracy value", "big", "'gap' of the records"),
        ("measures.json gap accuracy", None, "measures.json is damaged"),
        ("measures.json train accuracy", 1e9, "'train_accuracy' of the record"),
        ("measures.json measures", [1], "measures.json is damaged"),
        ("measures.json noise", [{"layer": "a"}], "measures.json is damaged"),
        ("export/verification.json margin", 3, ""),
        ("export/verification.json difference", 3, "verification.json is dama"),
        ("config.json dataset flip", "no", "config.json is damaged .*flip is"),
        ("config.json name", "../x", "config.json is damaged .*name is"),
        ("config.json model", 3, "config.json is damaged"),
        ("config.json seed", None, "config.json is damaged .*seed is None"),
        ("train.json epochs", {}, "'epochs' of the records"),
    ],
)
def test_a_file_with_another_content_is_named(runs, path, value, message):
    file, *fields = path.split()
    content = part = runs[1].read_json(file)
    for field in fields[:-1]:
        part = part[field]
    part[fields[-1]] = value
    (runs[1].path / file).write_text(json.dumps(content))
    if not message:  # a field that nobody reads
        records.frame(runs)
        return
    with pytest.raises(errors.RunDirectoryError, match=message) as found:
        records.frame(runs)
        records.noise(runs)
    assert str(runs[1].path) in str(found.value)


def test_files_hold_what_the_runs_say(runs, tmp_path):
    fake_runs.distort(runs[1])
    frame = records.frame(runs)
    records.write(frame, tmp_path / "out", runs)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("records.parquet", "records.csv", "noise.csv"),
    }
    for name in ("records.parquet", "records.csv"):
        loaded = qgen_tf.study.load(tmp_path / "out" / name)
        pd.testing.assert_frame_equal(loaded, frame)
    by_run = frame.sort_values("run", ignore_index=True)
    pd.testing.assert_frame_equal(records.load(tmp_path / "runs"), by_run)
    fields = pq.read_schema(tmp_path / "out" / "records.parquet")
    assert fields.field("gap").metadata[b"unit"] == b"points"
    assert fields.field("run").metadata[b"meaning"] == b"folder of the run"
    noise = pd.read_csv(tmp_path / "out" / "noise.csv")
    assert noise["bits"].tolist() == ["w4a8", "w4a8"]


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]))
_BITS = st.integers(1, 32)
_POINTS = st.none() | st.floats(0.0, 100.0)
_VALUES = {
    schema.TEXT: st.none() | _TEXT,
    schema.NUMBER: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    schema.COUNT: st.integers(0, 2**63 - 1),
    schema.FLAG: st.none() | st.booleans(),
}


def _values(column):
    if column.name.endswith("_bits"):
        return _BITS
    return _POINTS if column.unit == "points" else _VALUES[column.kind]


@hypothesis.given(data=st.data(), num_rows=st.integers(1, 4))
@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_both_files_give_back_any_records(tmp_path, data, num_rows):
    names = data.draw(
        st.lists(
            st.sampled_from([*schema.COLUMNS, "file_corrupted_fog_1_gap"]),
            unique=True,
            max_size=6,
        )
    )
    frame = pd.DataFrame(
        {
            name: pd.Series(
                data.draw(
                    st.lists(
                        _values(schema.describe(name)),
                        min_size=num_rows,
                        max_size=num_rows,
                    )
                ),
                dtype=object,
            )
            for name in names
            if name != "run"
        }
        | {"run": [f"run{row}" for row in range(num_rows)]}
    )
    fitted = schema.fit(frame)
    records.write(frame, tmp_path)
    for name in (records.PARQUET_FILE, records.CSV_FILE):
        loaded = records.load(tmp_path / name)
        pd.testing.assert_frame_equal(loaded, fitted, check_exact=True)


def test_parts_of_a_study_are_put_together(tmp_path):
    frame = schema.fit(report_records.records(num_floats=4))
    cluster = frame["twin_of"].unique()
    first = frame[frame["twin_of"].isin(cluster[:3])]
    second = frame[frame["twin_of"].isin(cluster[2:])]
    # a part may lack what another has
    measured = "pac_bayes_sigma"
    assert measured in second
    records.write(first, tmp_path / "a")
    records.write(second, tmp_path / "b")
    parts = [tmp_path / "a/records.csv", tmp_path / "b/records.parquet"]
    pd.testing.assert_frame_equal(records.load(parts), frame, check_exact=True)
    third = frame[frame["twin_of"] == cluster[3]].drop(columns=measured)
    records.write(third, tmp_path / "c")
    loaded = records.load([parts[0], tmp_path / "c/records.csv"])
    assert len(loaded) == len(frame)
    assert loaded[measured].isna().sum() == len(third)
    assert loaded.dtypes.equals(frame.dtypes[loaded.columns])


def test_parts_that_contradict_each_other(tmp_path):
    frame = schema.fit(report_records.records(num_floats=1))
    records.write(frame, tmp_path / "a")
    records.write(frame.assign(gap=frame["gap"] + 1.0), tmp_path / "b")
    name = frame["run"][0]
    with pytest.raises(errors.DataError, match=f"{name}'.* differ in 'gap'"):
        records.load([tmp_path / f"{part}/records.csv" for part in "ab"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"", "a.csv cannot be read: Empty CSV"),
        ("a.csv", b"gap\n1\n", "cannot be read: .* no column 'run'"),
        ("a.csv", b"run,beauty\nx,1\n", "cannot be read: .* 'beauty'"),
        ("a.csv", b"run,gap\nx,wide\n", "cannot be read: column 'gap'"),
        ("a.csv", b"run,gap\nx,1,2\n", "Expected 2 columns, got 3"),
        ("a.csv", b"run,seed,gap\nx,1\n", "Expected 3 columns, got 2"),
        ("a.csv", b"run,gap,gap\nx,1,2\n", "two columns 'gap'"),
        ("a.csv", b"run\n\xff\xfe\n", "cannot be read: .*(?i:utf-?8)"),
        ("a.csv", b"run\n../../x\n", "cannot be read: '../../x' is no name"),
        ("a.csv", b"run,gap\n,1\n", "cannot be read: '' is no name"),
        ("a.parquet", b"", "a.parquet cannot be read: "),
        ("a.parquet", b"PAR1 or not", "a.parquet cannot be read: "),
        ("a.xlsx", b"", "a.xlsx is no file of records"),
    ],
)
def test_a_foreign_file_is_one_sentence(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(errors.DataError, match=message) as found:
        records.load(tmp_path / file)
    assert "\n" not in str(found.value)


def test_a_truncated_file_is_one_sentence(tmp_path):
    records.write(report_records.records(num_floats=1), tmp_path)
    path = tmp_path / "records.parquet"
    content = path.read_bytes()
    for size in (4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(errors.DataError, match="parquet cannot be read"):
            records.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(errors.DataError, match=r"x\.csv cannot be read"):
        records.load([tmp_path / "x.csv"])
    with pytest.raises(errors.DataError, match="at least one path"):
        records.load([])


def test_what_does_not_fit_is_not_written(tmp_path):
    records.write(report_records.records(num_floats=1), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(errors.DataError, match="'beauty'"):
        records.write(pd.DataFrame({"beauty": [1.0]}), tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_the_package_is_imported_cheaply():
    code = (
        "import sys, qgen_tf.study; assert 'load' in qgen_tf.study.__all__; "
        "sys.exit('pandas' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'beauty'"):
        qgen_tf.study.beauty  # noqa: B018


@pytest.mark.slow
def test_a_record_repeats_the_files_of_a_run(tmp_path):
    runs = tiny.copies(tmp_path)
    frame = records.frame(runs)
    assert list(frame["bits"]) == ["float", "w4a8"]
    assert set(frame["twin_of"]) == {runs[0].path.name}
    for run, (_, row) in zip(runs, frame.iterrows(), strict=True):
        verified = run.read_json(exporting.VERIFICATION_FILE)
        assert row["gap"] == row["train_accuracy"] - row["test_accuracy"]
        assert row["loss_gap"] == pytest.approx(
            row["train_loss"] - row["test_loss"]
        )
        assert row["file_gap"] == pytest.approx(
            verified["train"]["accuracy"] - verified["test"]["accuracy"]
        )
        assert row["gap_difference"] == pytest.approx(
            row["file_gap"] - row["gap"]
        )
        size = (run.path / exporting.MODEL_FILE).stat().st_size
        assert row["kilobytes"] * 1000 == size
        assert 0.0 < row["latency_ms"] <= verified["latency_ms"]["p90"]
    numbers = frame.drop(columns=["stopped_at_loss"]).select_dtypes("number")
    assert np.isfinite(numbers).all().all()
    unit = runs[0].read_json("measures.json")["measures"]["average_sharpness"]
    assert schema.describe("average_sharpness").unit == unit["unit"]


def test_a_record_without_latency_is_not_verified_again(tmp_path):
    run = tiny.copies(tmp_path)[0]
    record = run.read_json(exporting.VERIFICATION_FILE)
    assert 0.0 < record.pop("latency_ms")["p50"]
    run.write_json(exporting.VERIFICATION_FILE, record)
    assert exporting.is_verified(run.path)
    assert exporting.verify(run.path) == record
