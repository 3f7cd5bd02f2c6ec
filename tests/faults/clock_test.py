"""Clocks that go backwards, and files that come from the future."""

import itertools
import os
import shutil
import time

import pytest

from qgen_tf import training
from qgen_tf.study import distorting, exporting, measuring, trial
from qgen_tf.training import TRAINED_FILE, lock
from tests import tiny
from tests.faults import disk

_YEAR = 365 * 86400.0


@pytest.fixture
def backwards(monkeypatch):
    """Takes the clock back by an hour each time that somebody looks."""
    hours = itertools.count()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(hours))


def _move(folder, seconds):
    """Makes all files of a folder so much newer."""
    for path in folder.rglob("*"):
        os.utime(path, (path.stat().st_mtime + seconds,) * 2)


def test_a_trial_is_what_it_is(
    config, done, tmp_path, monkeypatch, backwards, capsys
):
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            trial.run(config, tmp_path)
    _move(tmp_path, 10 * _YEAR)
    run = training.train(config, tmp_path)
    cache = tmp_path / trial.CORRUPTED_FOLDER
    for stage, years in (
        (lambda: measuring.measure(run.path, config.measures), -30),
        (lambda: exporting.verify(run.path), 50),
        (lambda: distorting.distort(run.path, config.corruptions, cache), 0),
    ):
        _move(tmp_path, years * _YEAR)
        stage()
    expected, found = disk.contents(done.path), disk.contents(run.path)
    assert trial.is_done(config, tmp_path)
    for name, content in expected.items():
        if "verification" not in name and name != trial.SECONDS_FILE:
            assert found[name] == content, name


def test_what_is_done_stays_done(config, done, tmp_path, backwards):
    workdir = tmp_path / "runs"
    shutil.copytree(done.path.parent, workdir)
    path = workdir / done.path.name
    _move(workdir, 10 * _YEAR)
    (path / TRAINED_FILE).touch()  # the oldest of all
    before = disk.contents(workdir)
    trial.run(config, workdir)
    distorting.distort(
        path, config.corruptions, workdir / trial.CORRUPTED_FOLDER
    )
    assert disk.contents(workdir) == before


def test_a_lock_is_waited_for_by_another_clock(tmp_path, backwards, refused):
    begun = time.monotonic()
    with lock(tmp_path / "lock"), refused("in use by process"):
        with lock(tmp_path / "lock", wait=0.2):
            pass
    assert 0.2 <= time.monotonic() - begun < 10.0
