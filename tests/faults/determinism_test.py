"""A sweep tells its workers whether a rerun is to give the same bits."""

import contextlib

import pytest
import tensorflow as tf

from qgen_tf import training
from qgen_tf.study import scheduler, sweep, trial
from tests import tiny


@pytest.mark.parametrize("deterministic", [True, False])
def test_workers_compute_as_they_are_told(tmp_path, monkeypatch, deterministic):
    told = []
    monkeypatch.setattr(
        scheduler, "cluster", lambda resources: contextlib.nullcontext()
    )

    def run(jobs, work, resources, on_change):
        state = scheduler.State()
        for job in jobs:
            work(job.argument)
            state.failed[job.key] = "it was not run"
        return state

    monkeypatch.setattr(scheduler, "run", run)
    monkeypatch.setattr(trial, "attempt", lambda config, workdir: None)
    monkeypatch.setattr(
        training,
        "make_deterministic",
        lambda seed, *, operations: told.append((seed, operations)),
    )
    for name in ("intra", "inter"):
        monkeypatch.setattr(
            tf.config.threading,
            f"set_{name}_op_parallelism_threads",
            lambda count: None,
        )
    config = tiny.config()
    config.seed = 7
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")
    sweep.run(config, tmp_path, deterministic=deterministic)
    assert told == 2 * [(7, deterministic)]  # the float model and its twin
