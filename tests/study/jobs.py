"""Jobs for tests of the scheduler; each leaves a line of what it did."""

import os
import pathlib
import signal
import time


def note(argument):
    """Writes "start <name>" and "end <name>" into a file, and may fail.

    Args:
      argument: (folder, name, what is to happen: None, the reason of a
        failure, "crash" or "raise").

    Returns:
      The reason of the failure.
    """
    folder, name, fate = argument
    log = pathlib.Path(folder) / "log"
    _append(log, f"start {name} {os.getpid()}\n")
    time.sleep(0.2)
    if fate == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "crash once" and not _has(log, f"end {name}"):
        _append(log, f"end {name} {os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "raise":
        raise ValueError("a bug")
    _append(log, f"end {name} {os.getpid()}\n")
    return None if fate == "crash once" else fate


def _has(log, prefix):
    return any(line.startswith(prefix) for line in log.read_text().splitlines())


def _append(log, line):
    with log.open("a") as file:
        file.write(line)
