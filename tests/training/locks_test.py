"""One process at a time writes into a run directory."""

import os
import time

import pytest

from qgen_tf import errors
from qgen_tf.training import lock, locks
from qgen_tf.training.run_directory import RunDirectory
from tests import forks, tiny


def _hold(path):
    with lock(path):
        print("held", flush=True)
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path / "lock"`."""
    output = tmp_path / "output"
    process = forks.start((output, output), _hold, tmp_path / "lock")
    while not output.exists() or output.read_text() != "held\n":
        assert process.is_alive()
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_a_held_lock_names_its_process(holder, tmp_path):
    with pytest.raises(
        errors.RunDirectoryError, match=f"in use by process {holder.pid}:"
    ):
        with lock(tmp_path / "lock", wait=0.3):
            pass


def test_a_lock_is_free_when_its_process_is_killed(holder, tmp_path):
    holder.kill()
    holder.join()
    with lock(tmp_path / "lock", wait=0.0):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_is_waited_for(tmp_path):
    begun = time.monotonic()
    with lock(tmp_path / "lock"):
        with pytest.raises(errors.RunDirectoryError):
            with lock(tmp_path / "lock", wait=0.5):
                pass
    assert time.monotonic() - begun >= 0.5
    with lock(tmp_path / "lock", wait=0.0):
        pass


def test_a_folder_is_no_lock(tmp_path):
    with pytest.raises(errors.RunDirectoryError, match="Is a directory; "):
        with lock(tmp_path):
            pass


def test_runs_have_locks_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(locks, "WAIT", 0.0)
    run = RunDirectory.create(tmp_path, tiny.config())
    other = RunDirectory.create(tmp_path, tiny.config(epochs=4))
    with run.locked(), other.locked():
        with pytest.raises(errors.RunDirectoryError, match=str(run.path)):
            with run.locked():
                pass
