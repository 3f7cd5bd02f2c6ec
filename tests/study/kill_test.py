"""A sweep that is killed again and again ends with the same numbers."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import h5py
import psutil
import pytest

from tests import imports

_CONFIG = """
from tests import tiny

def get_config():
    return tiny.config()
"""
_KILLS = 2
# what tells of times, and not of models
_TIMES = {".lock", "seconds.json", "records.csv", "records.parquet"}


def _start(workdir):
    config = workdir.parent / "note.py"
    config.write_text(_CONFIG)
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "qgen_tf.cli.sweep"),
            f"--config={config}",
            f"--workdir={workdir}",
        ],
        env=os.environ | {"PYTHONPATH": str(imports.REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _finish(process):
    _, log = process.communicate(timeout=300)
    assert process.returncode == 0, log.decode()[-2000:]


def _kill_a_worker(process, workdir):
    """Kills a process that is amid a training; returns whether it did."""
    while process.poll() is None:
        if any(workdir.glob("*/backup/checkpoint")):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.cmdline()[:1] == ["ray::work"]:
                        child.kill()
                        return True
        time.sleep(0.05)
    return False


def _results(workdir: pathlib.Path):
    """Returns relative path -> content of everything a sweep leaves."""
    contents = {}
    for path in sorted(workdir.glob("*-*/**/*")):
        name = path.relative_to(workdir)
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                arrays = []
                file.visititems(
                    lambda name, item, arrays=arrays: (
                        arrays.append((name, item[()].tobytes()))
                        if isinstance(item, h5py.Dataset)
                        else None
                    )
                )
            contents[name] = arrays
        elif path.name == "verification.json":
            record = json.loads(path.read_text())
            del record["latency_ms"]
            contents[name] = record
        elif path.is_file() and not (
            path.name in _TIMES or path.suffix in (".html", ".txt")
        ):
            contents[name] = path.read_bytes()
    return contents


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    undisturbed = tmp_path / "undisturbed" / "runs"
    disturbed = tmp_path / "disturbed" / "runs"
    for workdir in (undisturbed, disturbed):
        workdir.parent.mkdir()
    start = time.monotonic()
    _finish(_start(undisturbed))
    duration = time.monotonic() - start

    process = _start(disturbed)
    assert _kill_a_worker(process, disturbed)
    generator = random.Random(0)
    for _ in range(_KILLS):
        with contextlib.suppress(subprocess.TimeoutExpired):
            # The imports take the first half of each attempt.
            process.wait(timeout=generator.uniform(0.3, 0.8) * duration)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = _start(disturbed)
    _finish(process)

    expected, found = _results(undisturbed), _results(disturbed)
    assert len(expected) > 15
    assert found.keys() == expected.keys()
    for path, content in expected.items():
        assert found[path] == content, path
