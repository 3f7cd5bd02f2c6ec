"""Latency of a file: what is timed, and what is not."""

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.study import latency


class _Clock:
    """Stands for the interpreter: its calls take the seconds it is told."""

    def __init__(self, seconds):
        self.seconds, self.now, self.calls = iter(seconds), 0.0, []

    def __call__(self, content, **settings):
        self.calls.append((content, settings))
        return self

    def output_levels(self, images):
        self.calls.append(images.shape)
        self.now += next(self.seconds)


def test_the_first_calls_are_left_out(monkeypatch):
    # 0.1 ms, 0.2 ms, ... after a warm-up that takes seconds
    clock = _Clock([9.0] * 10 + [1e-4 * call for call in range(1, 101)])
    monkeypatch.setattr(latency, "Interpreter", clock)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock.now)
    found = latency.latency_ms(
        b"file", np.zeros((8, 8, 1), np.float32), kernels="builtin"
    )
    assert found == pytest.approx({"p50": 5.05, "p90": 9.01})
    loaded, *calls = clock.calls
    assert loaded == (
        b"file",
        {
            "batch_size": 1,
            "num_threads": 1,
            "kernels": "builtin",
            "expand_low_bits": False,
        },
    )
    assert calls == [(1, 8, 8, 1)] * 110


def test_a_file_that_cannot_be_run():
    with pytest.raises(errors.ExportError, match="cannot run this file"):
        latency.latency_ms(b"no file", np.zeros((8, 8, 1), np.float32))
