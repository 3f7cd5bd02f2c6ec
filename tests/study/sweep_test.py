"""Sweeps: every trial in a process of its own, failures set apart."""

import pytest

from qgen_tf import errors, training
from qgen_tf.study import scheduler, sweep, trial
from qgen_tf.study.scheduler import Resources
from qgen_tf.training import RunDirectory
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config():
    """Of two float models, one of which diverges, with a twin each."""
    config = tiny.config(epochs=2)
    config.measures.names = ("parameter_norm",)
    config.sweep.axes = (("training.learning_rate", (1e-2, 1e30)),)
    return config


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    """The folder of the runs, and what the sweep came to."""
    workdir = tmp_path_factory.mktemp("runs")
    return workdir, sweep.run(config, workdir)


def test_a_sweep_does_every_trial_that_can_be_done(config, swept):
    workdir, outcome = swept
    assert [run.label for run in outcome.runs] == ["float", "w4a8"]
    for run in outcome.runs:
        assert run.config.training.learning_rate == 1e-2
        assert trial.is_done(_as_planned(config, run), workdir)


def _as_planned(config, run):
    planned = config.copy_and_resolve_references()
    planned.training.learning_rate = run.config.training.learning_rate
    bits = run.config.quantization
    return training.with_bits(planned, bits.weight_bits, bits.activation_bits)


def test_failures_have_their_reasons(swept):
    workdir, outcome = swept
    (of_float, why), (of_twin, because) = outcome.failed.items()
    assert "training diverged in epoch 1" in why
    assert because == f"{of_float}, which it needs, failed"
    assert (
        RunDirectory(workdir / of_float)
        .read_json(trial.FAILURE_FILE)["reason"]
        .startswith("ModelError")
    )
    assert not (workdir / of_twin).exists()


def test_what_failed_is_tried_again_on_demand_only(config, swept):
    workdir, outcome = swept
    found = sweep.progress(config, workdir)
    assert len(found.done) == 2 and not found.open
    assert {
        one.path.name: reason for one, reason in found.failed.items()
    } == outcome.failed
    again = sweep.progress(config, workdir, retry_failed=True)
    assert {one.path.name for one in again.open} == set(outcome.failed)


def test_a_finished_sweep_starts_nothing(config, swept, monkeypatch):
    workdir, outcome = swept
    monkeypatch.setattr(sweep.scheduler, "cluster", None)
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    again = sweep.run(config, workdir)
    assert [run.path for run in again.runs] == [
        run.path for run in outcome.runs
    ]
    assert again.failed == outcome.failed
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


def test_a_wrong_twin_stops_the_sweep_before_it_starts(tmp_path):
    config = tiny.config()
    config.twins = ((8, 8), (9, 8))
    with pytest.raises(errors.ConfigError, match="weight_bits is 9"):
        sweep.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_resources_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(errors.ConfigError, match="no Ray cluster can be"):
        sweep.run(tiny.config(), tmp_path, Resources(address="192.0.2.1:1"))
    monkeypatch.setattr(scheduler, "_join", lambda resources: None)
    monkeypatch.setattr(scheduler, "_total", {"CPU": 2.0, "GPU": 0.0}.get)
    message = "4096 CPUs and 0 GPUs, but this machine has 2 and 0"
    with pytest.raises(errors.ConfigError, match=message):
        sweep.run(tiny.config(), tmp_path, Resources(cpus=4096))
