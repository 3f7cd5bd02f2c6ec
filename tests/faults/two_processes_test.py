"""Two processes that want the same run directory."""

import os
import subprocess
import sys

import pytest

from qgen_tf import training
from qgen_tf.study import (
    bundling,
    distorting,
    explaining,
    exporting,
    measuring,
)
from qgen_tf.training import atomic_path, locks
from tests import tiny
from tests.faults import disk

# does not import TensorFlow
_HOLD = """
import fcntl, os, sys, time
files = [open(path, "w") for path in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(f"{os.getpid()}\\n")
    file.flush()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def hold(monkeypatch):
    """Has another process hold the locks of a run; returns the process."""
    monkeypatch.setattr(locks, "WAIT", 0.2)
    processes = []

    def start(path):
        process = subprocess.Popen(
            [
                *(sys.executable, "-S", "-c", _HOLD),
                *(path / name for name in (".lock", ".export.lock")),
            ],
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_one_of_them_writes(config, done, hold, refused):
    other = config.copy_and_resolve_references()
    other.measures.num_examples = 32
    other.corruptions.severities = (2,)
    before = disk.contents(done.path)
    process = hold(done.path)
    for attempt in (
        lambda: measuring.measure(done.path, other.measures),
        lambda: exporting.export(done.path, exporting.Settings(storage="int4")),
        lambda: exporting.verify(done.path, exporting.Settings(margin=1.0)),
        lambda: explaining.explain(done.path),
        lambda: bundling.bundle(done.path, done.path / "bundle"),
        lambda: distorting.distort(done.path, other.corruptions, done.path),
    ):
        with refused(f"{done.path} is in use by process {process.pid}: wait"):
            attempt()
    assert disk.contents(done.path) == before


def test_a_file_is_that_of_one_of_them(tmp_path, monkeypatch, refused):
    path = tmp_path / "records.csv"
    with refused(f"{path} is being written by another process: wait"):
        with atomic_path(path) as target, target.open("w") as file:
            file.write("one\n")
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 4711)
                with atomic_path(path) as other:
                    other.write_text("other\n")
    assert path.read_text() == "other\n"
    assert not disk.unfinished(tmp_path)


def test_one_of_them_trains(tmp_path, hold, refused):
    config = tiny.config(epochs=1)
    run = training.RunDirectory.create(tmp_path, config)
    process = hold(run.path)
    with refused(f"{run.path} is in use by process {process.pid}: wait"):
        training.train(config, tmp_path)
    assert disk.contents(run.path).keys() == {"config.json"}


def test_what_is_done_is_not_waited_for(config, done, hold):
    hold(done.path)
    assert measuring.measure(done.path, config.measures)["gap"]
    assert exporting.verify(done.path)["sha256"]
    assert distorting.distort(done.path, config.corruptions, done.path)
    assert training.train(config, done.path.parent).path == done.path
