"""Checks find what is wrong, say how to mend it, and never crash."""

import collections
import functools
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from export import operator_file
from qgen_tf import compat, errors
from qgen_tf.cli import checks, examination
from qgen_tf.cli.checks import OK, PROBLEM, WARNING, Finding
from tests import imports


def _raise(error):
    raise error


def _assert_finds(finding, status, *parts):
    assert finding.status == status, finding
    for part in parts:
        assert part in finding.text
    if status != OK:
        assert finding.text.endswith(".") and ": " in finding.text


def test_python_is_held_against_what_was_tried(monkeypatch):
    _assert_finds(checks.python(), OK, "3.")
    monkeypatch.setitem(compat.SUPPORTED, "python", "<3")
    _assert_finds(checks.python(), PROBLEM, "make an environment", "<3")


def test_packages_are_held_against_what_is_declared(monkeypatch):
    numpy = importlib.metadata.version("numpy")
    declared = [
        "numpy<1",
        "no-such-package>=1",
        "scipy",
        "no-such-extra; extra == 'test'",
        "no-such-platform; sys_platform == 'none'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: declared)
    _assert_finds(
        checks.packages(),
        PROBLEM,
        f"numpy<1 is needed, {numpy} is there; no-such-package is missing: ",
        "pip install",
    )
    declared[:] = declared[2:]
    _assert_finds(checks.packages(), OK, "all 1 are there")


def test_a_project_that_is_not_installed_declares_nothing(monkeypatch):
    error = importlib.metadata.PackageNotFoundError("qgen_tf")
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: _raise(error))
    _assert_finds(checks.packages(), WARNING, "pip install .")


def test_keras_is_legacy_keras():
    version = importlib.metadata.version("tf-keras")
    _assert_finds(checks.legacy_keras(), OK, f"tf_keras {version}")


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A machine with an NVIDIA driver, on which TensorFlow sees no GPU."""
    monkeypatch.setattr(checks, "_DRIVERS", (str(tmp_path),))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_that_is_not_seen(driver, monkeypatch):
    _assert_finds(checks.gpu(), WARNING, "finds no GPU: ", "'.[gpu]'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    _assert_finds(checks.gpu(), WARNING, "CUDA_VISIBLE_DEVICES=-1 hides")
    monkeypatch.setattr(checks, "_DRIVERS", ())
    _assert_finds(checks.gpu(), OK, "none, for want of an NVIDIA driver")


def test_a_gpu_that_is_seen(driver, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a"])
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda _: {"device_name": "NVIDIA H200"},
    )
    assert checks.gpu() == Finding(OK, "NVIDIA H200")


def test_digits_are_read():
    assert checks.digits() == Finding(OK, "1,347 to train, 450 to test")


def test_cifar10_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    finding = checks.cifar10()
    _assert_finds(finding, WARNING, str(tmp_path), "set TFDS_DATA_DIR")
    assert not list(tmp_path.iterdir())


def test_the_runtime_must_compute_rightly(monkeypatch):
    version = importlib.metadata.version("ai-edge-litert")
    assert checks.litert() == Finding(OK, f"{version} runs int8 models")
    file = operator_file.operator_file("CONV_2D", 8, seed=0)
    wrong = operator_file.OperatorFile(
        file.content, file.inputs, file.outputs ^ np.int8(4)
    )
    monkeypatch.setattr(operator_file, "operator_file", lambda *_, **__: wrong)
    finding = examination.attempt(checks.litert)
    _assert_finds(finding, PROBLEM, f"litert {version} computes", "4 steps off")


def test_room_is_looked_for_where_runs_will_be(monkeypatch, tmp_path):
    _assert_finds(checks.room(tmp_path / "new" / "runs"), OK, str(tmp_path))
    assert not list(tmp_path.iterdir())
    usage = collections.namedtuple("usage", "free")
    for free, status in ((1.5e9, WARNING), (5e7, PROBLEM)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, n=free: usage(n))
        _assert_finds(checks.room(tmp_path), status, "GB of room", "--workdir")


def test_a_folder_that_cannot_be_written_to(tmp_path):
    file = tmp_path / "file"
    file.touch()
    finding = checks.room(file / "runs")
    _assert_finds(finding, PROBLEM, f"cannot write to {file}", "--workdir")


@pytest.mark.parametrize(
    ("check", "part"),
    [(checks.scikit_image, "corruptions"), (checks.chromium, "tests of")],
)
def test_what_is_optional_is_no_problem(monkeypatch, check, part):
    error = importlib.metadata.PackageNotFoundError("scikit-image")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: _raise(error))
    monkeypatch.setenv("PATH", "")
    _assert_finds(check(), WARNING, "missing", part)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.StackError("this is wrong:\n mend it."), "wrong: mend it."),
        (ImportError("no libfoo.so"), "fails with ImportError: no libfoo.so;"),
        (KeyError(), "fails with KeyError; install qgen_tf in a fresh"),
    ],
)
def test_an_exception_is_a_problem_found(error, text):
    finding = examination.attempt(functools.partial(_raise, error))
    assert finding.status == PROBLEM and text in finding.text


@pytest.mark.parametrize(
    ("check", "timeout", "text"),
    [
        (os.abort, 120.0, "crashed (SIGABRT): install"),
        (functools.partial(os._exit, 3), 120.0, "crashed (status 3): install"),
        (functools.partial(int, "x"), 120.0, "fails with ValueError: "),
        (functools.partial(time.sleep, 600), 1.0, "not done after 1 seconds: "),
    ],
)
def test_a_process_that_crashes_or_hangs_is_a_problem_found(
    check, timeout, text
):
    start = time.monotonic()
    finding = examination.examine(check, timeout=timeout)
    assert finding.status == PROBLEM and text in finding.text
    assert time.monotonic() - start < 120.0


def test_findings_come_in_the_order_of_the_checks(tmp_path):
    asked = [
        checks.python,
        functools.partial(checks.room, tmp_path / "runs"),
        os.abort,
        checks.python,
    ]
    statuses = [found.status for found in examination.examine_all(asked)]
    assert statuses == [OK, OK, PROBLEM, OK]


def _doctor(*arguments, **environment):
    process = subprocess.run(
        [sys.executable, "-m", "qgen_tf.cli.doctor", *arguments],
        env={"PATH": "", **environment},
        cwd=imports.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.stderr == ""
    return process.returncode, process.stdout


@pytest.mark.slow
def test_this_machine_can_work(tmp_path):
    status, output = _doctor(
        "--json",
        f"--workdir={tmp_path}",
        TFDS_DATA_DIR=str(tmp_path),
        HOME=str(tmp_path),
    )
    rows = json.loads(output)["checks"]
    found = {row["name"]: row["status"] for row in rows}
    assert list(found) == list(checks.checks(tmp_path))
    assert status == 0, rows
    assert {found[name] for name in ("Keras", "digits", "Ray", "LiteRT")} == {
        OK
    }
    assert found["CIFAR-10"] == found["Chromium"] == WARNING


@pytest.mark.slow
def test_a_broken_machine_is_told_what_is_wrong(tmp_path):
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    (fakes / "tensorflow.py").write_text("raise ImportError('no libfoo.so')")
    (fakes / "ray.py").write_text("import os\nos.kill(os.getpid(), 4)")
    status, output = _doctor(
        f"--workdir={tmp_path}", PYTHONPATH=str(fakes), HOME=str(tmp_path)
    )
    assert status == 2
    text = " ".join(output.split())
    assert "problem GPU fails with ImportError: no libfoo.so; install" in text
    assert "problem Ray the process crashed (SIGILL): this CPU lacks" in text
    assert "ok workdir" in text
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("Mend what is wrong before ")
    assert max(map(len, output.splitlines())) < 80
