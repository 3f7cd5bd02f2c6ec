"""A sweep that is killed again and again ends with the same numbers."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import h5py
import pytest

from tests import imports

_CONFIG = """
from tests import tiny

def get_config():
    return tiny.config()
"""
_KILLS = 4


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


def _results(workdir: pathlib.Path):
    """Returns relative path -> content of everything a sweep leaves."""
    contents = {}
    for path in sorted(workdir.rglob("*")):
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
            contents[path.relative_to(workdir)] = arrays
        elif path.is_file() and path.suffix != ".html":
            contents[path.relative_to(workdir)] = path.read_bytes()
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

    generator = random.Random(0)
    killed = 0
    for _ in range(_KILLS):
        process = _start(disturbed)
        try:
            # The import takes the first seconds of each attempt.
            process.wait(timeout=generator.uniform(0.2, 0.8) * duration)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed
    _finish(_start(disturbed))

    expected, found = _results(undisturbed), _results(disturbed)
    assert len(expected) > 15
    assert found.keys() == expected.keys()
    for path, content in expected.items():
        assert found[path] == content, path
