"""A process that takes training steps when told to, and reports their cost.

`Worker` starts one from here; `serve` is what runs in it. It may run in
another Python than this one, so that this file and `rows` need nothing but
Python.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.rows import Cost, timed

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_WARMUP_STEPS = 5
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


class WorkerError(Exception):
    """A worker ended early: a package is missing there, or failed."""


def serve(step: Callable[[], object]) -> None:
    """Takes a step for each line of standard input, then reports the peak.

    Args:
      step: takes one training step and returns when it is done.
    """
    for _ in range(_WARMUP_STEPS):
        step()
    _report("ready", True)
    for _ in sys.stdin:
        _report("cost", dataclasses.asdict(timed(step)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _report("peak_bytes", peak * _PEAK_UNIT)


def _report(key: str, value: object) -> None:
    print(json.dumps({key: value}), flush=True)


class Worker:
    """One contender in a process of its own, idle between its steps."""

    def __init__(self, python: str, module: str, arguments: Sequence[str]):
        """Starts the process and waits until it has warmed up.

        Args:
          python: path of the interpreter.
          module: one that calls `serve` when it is run.
          arguments: of its command line.

        Raises:
          WorkerError: it ended before, with the last line that it wrote.
        """
        self._log = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                [python, "-m", module, *arguments],
                cwd=_ROOT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        except OSError as error:
            raise WorkerError(str(error)) from error
        self._read("ready")

    def step(self) -> Cost:
        """Lets the contender take one training step."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Cost(**self._read("cost"))

    def close(self) -> int:
        """Ends the process and returns the peak of its memory, in bytes."""
        self._process.stdin.close()
        peak = self._read("peak_bytes")
        self._process.wait()
        return peak

    def kill(self) -> None:
        """Ends the process at once, if it still runs."""
        self._process.kill()
        self._process.wait()

    def _read(self, key: str) -> Any:
        for line in self._process.stdout:
            try:
                return json.loads(line)[key]
            except (ValueError, KeyError, TypeError):
                continue  # a library printed this line
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["it wrote nothing"]
        raise WorkerError(lines[-1])
