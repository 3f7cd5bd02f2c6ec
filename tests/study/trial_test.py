"""The stages of one trial."""

import json

import pytest

from qgen_tf import errors, training
from qgen_tf.study import distorting, exporting, measuring, trial
from qgen_tf.training import RunDirectory
from tests import tiny


@pytest.fixture(scope="module")
def config():
    config = tiny.config()
    config.corruptions.kinds = ("contrast",)
    config.corruptions.severities = (1,)
    return config


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    return trial.run(config, tmp_path_factory.mktemp("runs"))


def test_a_trial_goes_through_every_stage(config, done):
    workdir = done.path.parent
    assert trial.is_done(config, workdir)
    assert [stage.name for stage in trial.stages(config, workdir)] == [
        *("train", "measure", "export", "corruptions")
    ]
    for file in (
        training.TRAINED_FILE,
        measuring.MEASURES_FILE,
        exporting.VERIFICATION_FILE,
        distorting.CORRUPTIONS_FILE,
    ):
        assert (done.path / file).exists()
    assert list((workdir / trial.CORRUPTED_FOLDER).glob("*.npy"))
    seconds = done.read_json(trial.SECONDS_FILE)
    assert list(seconds) == ["train", "measure", "export", "corruptions"]
    assert min(seconds.values()) > 0.0


def test_a_finished_trial_does_nothing_again(config, done):
    def times():
        return {p: p.stat().st_mtime_ns for p in done.path.rglob("*")}

    before = times()
    assert trial.run(config, done.path.parent).path == done.path
    assert times() == before


def test_a_stage_that_is_missing_is_made_up_for(config, done):
    seconds = done.read_json(trial.SECONDS_FILE)
    (done.path / distorting.CORRUPTIONS_FILE).unlink()
    assert not trial.is_done(config, done.path.parent)
    trial.run(config, done.path.parent)
    again = done.read_json(trial.SECONDS_FILE)
    assert again["corruptions"] > seconds["corruptions"]
    assert again["train"] == seconds["train"]


def test_a_failure_is_kept_until_an_attempt_succeeds(tmp_path, monkeypatch):
    config = tiny.config(learning_rate=1e30)
    reason = trial.attempt(config, tmp_path)
    assert reason.startswith("ModelError: training diverged in epoch")
    assert trial.failure(config, tmp_path) == reason
    path = training.run_path(tmp_path, config)
    content = json.loads((path / trial.FAILURE_FILE).read_text())
    assert "Traceback" in content["traceback"]
    assert content["stage"] == "train"
    monkeypatch.setattr(
        trial, "stages", lambda config, workdir: ()
    )  # as if it went well
    assert trial.attempt(config, tmp_path) is None
    assert trial.failure(config, tmp_path) is None


def test_a_failure_that_cannot_be_written_is_told_still(tmp_path):
    (tmp_path / "file").write_text("")
    reason = trial.attempt(tiny.config(), tmp_path / "file")
    assert "cannot write" in reason and "cannot be recorded" in reason


def test_stages_want_a_trained_run(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())
    for stage in (
        lambda: measuring.measure(run.path, tiny.config().measures),
        lambda: exporting.export(run.path),
    ):
        with pytest.raises(errors.RunDirectoryError, match="not trained"):
            stage()
