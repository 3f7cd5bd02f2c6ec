"""What computes, and whether others use it."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import time

_PACKAGES = (
    *("tensorflow", "tf-keras", "tensorflow-model-optimization"),
    *("ai-edge-litert", "numpy", "ray"),
)
# of the first line of /proc/stat: user, nice, system; irq, softirq, steal
_BUSY = (0, 1, 2, 5, 6, 7)


def description() -> str:
    """Returns cores, processor and versions, in words."""
    names = pathlib.Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*: (.+)$", names, re.MULTILINE)
    processor = found[1] if found else platform.machine()
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES
    )
    return (
        f"{os.cpu_count()} cores of {processor} with Python "
        f"{platform.python_version()}, {versions}"
    )


def busy_cores(seconds: float = 3.0) -> float:
    """Returns how many cores are busy, while this process waits."""
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / seconds


def _busy_seconds() -> float:
    """Returns processor time since the machine was started."""
    fields = pathlib.Path("/proc/stat").read_text().split()[1:]
    ticks = sum(int(fields[index]) for index in _BUSY)
    return ticks / os.sysconf("SC_CLK_TCK")
