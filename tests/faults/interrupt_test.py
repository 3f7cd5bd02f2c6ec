"""Ctrl-C ends a command and all that it started, and leaves no litter."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from tests import imports
from tests.faults import disk, kill


def _start(stage, arguments, folder):
    def as_in_a_terminal():
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(
        [sys.executable, "-m", f"qgen_tf.cli.{stage}", *arguments],
        env=os.environ
        | {"PYTHONPATH": str(imports.REPOSITORY), "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=as_in_a_terminal,
        text=True,
    )


def _wait_for(condition, process, seconds=300.0):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def _interrupt(process):
    """Does what Ctrl-C does; returns what was left of the processes."""
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr[-2000:]
    assert stderr.splitlines()[-1].endswith(
        "interrupted; run the same command to go on."
    )
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(started, timeout=30)
    return alive


@pytest.fixture
def temporary():
    """A folder for temporary files; its path is short, as Ray needs it."""
    with tempfile.TemporaryDirectory(prefix="q", dir="/tmp") as folder:
        yield pathlib.Path(folder)


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "note.py"
    path.write_text(kill.NOTE)
    return path


@pytest.mark.slow
def test_training(note, tmp_path, temporary):
    workdir = tmp_path / "runs"
    process = _start(
        "train",
        [
            *(f"--config={note}", f"--workdir={workdir}"),
            "--config.training.epochs=100000",
        ],
        temporary,
    )
    _wait_for(lambda: list(workdir.glob("*/backup/checkpoint")), process)
    assert not _interrupt(process)
    assert not disk.unfinished(workdir)
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_a_sweep(note, tmp_path, temporary):
    workdir = tmp_path / "runs"
    process = _start(
        "sweep",
        [
            *(f"--config={note}", f"--workdir={workdir}"),
            *("--config.training.epochs=100000", "--config.twins=()"),
        ],
        temporary,
    )
    _wait_for(lambda: list(workdir.glob("*/backup/checkpoint")), process)
    assert not _interrupt(process)
    assert not disk.unfinished(workdir)
    assert [path.name for path in temporary.iterdir()] in ([], ["ray"])
    assert not list(workdir.glob("*/failure.json"))


@pytest.mark.slow
def test_a_verification(done, tmp_path, temporary):
    path = tmp_path / done.path.name
    shutil.copytree(done.path, path)
    before = disk.contents(path)
    process = _start(
        "export",
        [f"--run_dir={path}", "--verify", "--kernels=reference"],
        temporary,
    )
    # the file that is there is tried in a child process first
    _wait_for(lambda: psutil.Process(process.pid).children(), process)
    assert not _interrupt(process)
    assert disk.contents(path) == before
    assert not disk.unfinished(path)
    assert not list(temporary.iterdir())
