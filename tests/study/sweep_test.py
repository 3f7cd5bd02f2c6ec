"""The main job on tiny models: every stage, its record, its report."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from qgen_tf import errors, training
from qgen_tf.study import (
    exporting,
    measuring,
    records,
    report,
    sweep,
    tables,
)
from qgen_tf.training import RunDirectory
from tests import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    return sweep.run(tiny.config(), workdir)


@pytest.fixture(scope="module")
def frame(runs):
    return records.load(runs)


def test_trials_are_the_float_model_and_its_twins():
    config = tiny.config()
    config.twins = ((8, 8), (2, 8))
    labels = [training.label(trial) for trial in sweep.trials(config)]
    assert labels == ["float", "w8a8", "w2a8"]
    assert {trial.seed for trial in sweep.trials(config)} == {config.seed}


@pytest.mark.parametrize("twins", [((8,),), (("8", "8"),), ((8, 8, 8),)])
def test_twins_must_be_pairs_of_numbers(twins, tmp_path):
    config = tiny.config()
    config.twins = twins
    with pytest.raises(errors.ConfigError, match="write pairs"):
        sweep.run(config, tmp_path)


def test_a_wrong_twin_stops_the_sweep_before_it_starts(tmp_path):
    config = tiny.config()
    config.twins = ((8, 8), (9, 8))
    with pytest.raises(errors.ConfigError, match="weight_bits is 9"):
        sweep.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_sweep_does_nothing_again(runs):
    workdir = runs[0].path.parent
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    again = sweep.run(tiny.config(), workdir)
    assert [run.path for run in again] == [run.path for run in runs]
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


def test_measuring_with_other_settings_measures_again(runs):
    settings = tiny.config().measures
    first = measuring.measure(runs[0].path, settings)
    settings.average_sharpness.sigma = 0.2
    second = measuring.measure(runs[0].path, settings)
    sharpness = "average_sharpness"
    assert second["measures"][sharpness]["settings"]["sigma"] == 0.2
    assert (
        second["measures"][sharpness]["value"]
        != first["measures"][sharpness]["value"]
    )
    assert second["gap"] == first["gap"]
    assert measuring.measure(runs[0].path, tiny.config().measures) == first


def test_what_rounding_costs_is_found_of_the_float_run(runs, tmp_path):
    settings = tiny.config().measures
    settings.names = (*settings.names, measuring.LOSS_RISES)
    copies = [
        RunDirectory(shutil.copytree(run.path, tmp_path / run.path.name))
        for run in runs
    ]
    for run, bits in zip(copies, ([8, 6, 4, 3, 2], []), strict=True):
        record = measuring.measure(run.path, settings)
        rises = record.get("rises", [])
        assert [rise["num_bits"] for rise in rises] == bits
        assert measuring.is_measured(run.path, settings)
    report.write(copies, tmp_path)
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert "Outside of the band" in page


def test_an_unknown_measure_is_refused(runs):
    settings = tiny.config().measures
    settings.names = ("beauty",)
    with pytest.raises(errors.ConfigError, match="'beauty' is unknown"):
        measuring.measure(runs[0].path, settings)


def test_a_record_repeats_its_files(runs, frame):
    assert list(frame["model"]) == ["float", "w4a8"]
    for run, (_, row) in zip(runs, frame.iterrows(), strict=True):
        measured = run.read_json(measuring.MEASURES_FILE)
        verified = run.read_json(exporting.VERIFICATION_FILE)
        assert row["accuracy_gap"] == pytest.approx(
            measured["train"]["accuracy"] - measured["test"]["accuracy"]
        )
        assert row["loss_gap"] == pytest.approx(
            measured["train"]["loss"] - measured["test"]["loss"]
        )
        assert row["tflite_accuracy_gap"] == pytest.approx(
            verified["train"]["accuracy"] - verified["test"]["accuracy"]
        )
        assert row["gap_difference"] == pytest.approx(
            row["tflite_accuracy_gap"] - row["accuracy_gap"]
        )
        assert row["kilobytes"] * 1000 == (
            (run.path / exporting.MODEL_FILE).stat().st_size
        )
        assert row["max_steps_deployed"] <= 1.01
    numbers = frame.select_dtypes("number").drop(columns="seed")
    assert np.isfinite(numbers).all().all()


def test_noise_has_a_row_for_each_quantized_layer(runs):
    noise = records.noise(runs)
    assert set(noise["model"]) == {"w4a8"}
    assert list(noise["num_bits"]) == [8, 4, 4, 8]  # first and last layer: 8


def test_find_takes_finished_runs_only(runs, tmp_path):
    workdir = runs[0].path.parent
    assert {run.path for run in records.find(workdir, "tiny")} == {
        run.path for run in runs
    }
    RunDirectory.create(tmp_path, tiny.config())
    for folder, name in ((workdir, "other"), (tmp_path, "tiny")):
        with pytest.raises(errors.RunDirectoryError, match="qgen-sweep"):
            records.find(folder, name)


def test_the_report_is_one_file_with_its_plots(runs, tmp_path):
    text = report.write(runs, tmp_path)
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert text.endswith(str(tmp_path / "tiny" / "report.html"))
    assert page.count('src="data:image/png;base64,') == 6
    assert "http" not in page.replace("http-equiv", "")
    assert "w4a8" in page and "cannot tell" in page
    table = pd.read_csv(tmp_path / "tiny" / "records.csv")
    assert list(table["model"]) == ["float", "w4a8"]


def test_the_report_of_a_float_model_alone(runs, tmp_path):
    report.write(runs[:1], tmp_path)
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4


def test_tables_say_what_was_found(runs, frame):
    lines = tables.summary_text(frame).splitlines()
    assert lines[0].split() == ["float", "w4a8"]
    assert len(lines) == len(tables.COLUMNS)
    assert max(map(len, lines)) <= 80
    measured = runs[1].read_json(measuring.MEASURES_FILE)
    text = tables.measures_text(measured)
    assert f"{measured['test']['accuracy']:.2f} %" in text
    assert "block0_mix0_conv" in text
    verified = runs[1].read_json(exporting.VERIFICATION_FILE)
    text = tables.verification_text(verified)
    assert verified["verdict"] in text
    assert f"{verified['num_bytes']} bytes" in text


def test_stages_want_a_trained_run(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())
    for stage in (
        lambda: measuring.measure(run.path, tiny.config().measures),
        lambda: exporting.export(run.path),
    ):
        with pytest.raises(errors.RunDirectoryError, match="not trained"):
            stage()


def test_measures_are_json(runs):
    text = (runs[1].path / measuring.MEASURES_FILE).read_text()
    assert "NaN" not in text and json.loads(text)["noise"]
