"""What a sweep costs, said before it is run."""

import pytest

from qgen_tf import training
from qgen_tf.study import cost, design, trial
from qgen_tf.training import RunDirectory
from tests import tiny


@pytest.fixture
def config():
    config = tiny.config(epochs=5)
    config.twins = ((8, 8), (2, 8))
    config.quantization.epochs = 2
    config.sweep.axes = (("seed", (0, 1)),)
    return config


def _finish(monkeypatch, config, workdir, seconds):
    """Makes as if a trial was done for each entry of label -> seconds."""
    done = set()
    for one in design.trials(config, workdir):
        label = training.label(one.config)
        if label in seconds and label not in {name for name, _ in done}:
            run = RunDirectory.create(workdir, one.config)
            run.write_json(trial.SECONDS_FILE, seconds[label])
            done.add((label, one.path))
    paths = {path for _, path in done}
    monkeypatch.setattr(
        trial,
        "is_done",
        lambda config, workdir: training.run_path(workdir, config) in paths,
    )


def test_examples_are_epochs_times_training_set(config, tmp_path):
    found = cost.estimate(config, tmp_path)
    assert (found.num_float, found.num_twins) == (2, 4)
    assert (found.num_done, found.num_failed, found.num_open) == (0, 0, 6)
    assert found.examples == 200 * (2 * 5 + 4 * 2)
    assert found.hours is None and found.seconds == {}
    assert "no model is finished" in found.text(2)


def test_a_data_set_that_is_not_cut_is_counted(config, tmp_path):
    config.dataset.num_train = 0
    config.twins = ()
    found = cost.estimate(config, tmp_path)
    assert found.examples == 1347 * 2 * 5  # three quarters of 1,797 digits


def test_hours_are_those_of_finished_models(config, tmp_path, monkeypatch):
    _finish(
        monkeypatch,
        config,
        tmp_path,
        {"float": {"train": 80.0, "export": 20.0}, "w8a8": {"train": 60.0}},
    )
    found = cost.estimate(config, tmp_path)
    assert (found.num_done, found.num_open) == (2, 4)
    assert found.seconds == {"float": 100.0, "w8a8": 60.0}
    # a float model, a w8a8 and, taken as their mean, two w2a8
    assert found.hours == pytest.approx((100 + 60 + 2 * 80) / 3600)
    assert "seconds a model, medians of finished ones: float 100, w8a8 60" in (
        found.text(2)
    )


def test_what_failed_is_open_only_on_demand(config, tmp_path):
    first = design.trials(config, tmp_path)[0]
    trial.record_failure(first.config, tmp_path, "no luck")
    found = cost.estimate(config, tmp_path)
    assert (found.num_failed, found.num_open) == (3, 3)  # with its twins
    again = cost.estimate(config, tmp_path, retry_failed=True)
    assert (again.num_failed, again.num_open) == (0, 6)
