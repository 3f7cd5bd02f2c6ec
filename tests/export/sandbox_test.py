import functools
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from export import sandbox
from export.interpreter import Interpreter
from export.model_file import pack
from qgen_tf import errors
from tests.export import handmade

IMAGES = np.float32([[1, 2, 3, 4], [0, 0, 1, 0], [0, -1, 0, 0]])
LOGITS = IMAGES @ handmade.WEIGHT.T


@functools.cache
def _good():
    return pack(handmade.dense())


@pytest.fixture(scope="module")
def child():
    with sandbox.Sandbox() as child:
        yield child


@pytest.fixture(autouse=True)
def _no_child_is_left(child):
    sandbox.probe(_good(), sandbox=child)
    before = psutil.Process().children()
    yield
    sandbox.probe(_good(), sandbox=child)  # starts it again if it died
    assert len(psutil.Process().children()) == len(before)


def test_a_sandboxed_interpreter_is_one():
    with sandbox.SandboxedInterpreter(_good(), batch_size=2) as runtime:
        assert runtime.output_step_size is None
        for predict in (
            runtime.predict,
            runtime.output_levels,
            Interpreter(_good(), batch_size=2).predict,
        ):
            logits = predict(IMAGES)
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(logits, LOGITS)
        with pytest.raises(errors.DataError, match="are float64: pass them"):
            runtime.predict(IMAGES.astype(np.float64))


def test_a_crash_is_an_error_and_the_next_file_runs(child):
    os.kill(child._process.pid, signal.SIGSEGV)
    with pytest.raises(errors.ExportError, match="crashes with SIGSEGV on"):
        sandbox.probe(_good(), sandbox=child)
    sandbox.probe(_good(), sandbox=child)


def test_a_file_that_may_crash_the_runtime(child):
    """It reads in front of its tensors, whatever is there."""
    crashing = pack(handmade.crashing())
    with pytest.raises(errors.ExportError):
        sandbox.probe(crashing, sandbox=child)
    with pytest.raises(errors.ExportError):
        sandbox.probe(crashing)
    with pytest.raises(errors.ExportError):
        sandbox.SandboxedInterpreter(crashing).predict(IMAGES)


def test_an_interpreter_whose_child_has_ended():
    with sandbox.SandboxedInterpreter(_good()) as runtime:
        os.kill(runtime._sandbox._process.pid, signal.SIGKILL)
        with pytest.raises(errors.ExportError, match="crashes with SIGKILL"):
            runtime.predict(IMAGES)
        with pytest.raises(errors.ExportError, match="load the file again"):
            runtime.predict(IMAGES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "lacks the TFL3 mark"),
        (_good()[:200], "damaged: "),
    ],
)
def test_what_is_not_a_file(child, content, reason):
    with pytest.raises(errors.ExportError, match=reason):
        sandbox.probe(content, sandbox=child)


def test_settings_reach_the_interpreter(child):
    with pytest.raises(errors.ExportError, match="'gpu' are unknown"):
        sandbox.probe(_good(), sandbox=child, kernels="gpu")


def test_a_call_that_takes_too_long():
    with sandbox.Sandbox(timeout=0.1) as child:
        child.start()
        os.kill(child._process.pid, signal.SIGSTOP)
        with pytest.raises(errors.ExportError, match="not finish in 0.1 s on"):
            sandbox.probe(_good(), sandbox=child)


def test_memory_is_limited(child):
    many = 2**23  # 128 MiB of images, and as much for the runtime
    sandbox.probe(_good(), sandbox=child, batch_size=many)
    with sandbox.Sandbox(memory=96 * 2**20) as small:
        sandbox.probe(_good(), sandbox=small)
        with pytest.raises(errors.ExportError):
            sandbox.probe(_good(), sandbox=small, batch_size=many)
        sandbox.probe(_good(), sandbox=small)


def test_a_child_that_does_not_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(errors.ExportError, match="does not start: run `/bin/f"):
        sandbox.probe(_good())


def test_arrays_keep_type_and_shape():
    ours, theirs = sandbox.connection.Pipe()
    with ours, theirs:
        for array in (np.zeros((0, 3), np.float32), np.int8([[1], [-2]])):
            sandbox.send(ours, {"call": "predict"}, array[::-1])
            header, found = sandbox.receive(theirs)
            assert header == {"call": "predict"} and found.dtype == array.dtype
            np.testing.assert_array_equal(found, array[::-1])
            assert found.shape == array.shape


def test_the_child_does_not_see_tensorflow():
    code = "import sys, export.sandbox; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
