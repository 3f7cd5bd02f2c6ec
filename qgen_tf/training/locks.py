"""Locks that a process holds while it writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from qgen_tf import errors

# seconds; what a killed sweep leaves behind ends within them
WAIT = 30.0

_POLL = 0.1  # seconds


@contextlib.contextmanager
def lock(
    path: str | os.PathLike[str], *, wait: float | None = None
) -> Iterator[None]:
    """Holds a lock; the operating system frees it when the process ends.

    Args:
      path: of the lock's file, whose folder is made if it is not there. The
        file stays: to remove it would let in two processes at once.
      wait: for another process that holds the lock, in seconds; None for
        `WAIT`.

    Raises:
      RunDirectoryError: another process has held it for that long.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # read and write, without truncation: it names the process that holds it
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        _acquire(
            file, path, time.monotonic() + (WAIT if wait is None else wait)
        )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _acquire(file, path: pathlib.Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_POLL)
                continue
        file.seek(0)
        holder = file.read().strip() or "another"
        raise errors.RunDirectoryError(
            f"{path.parent} is in use by process {holder}: wait for it to end, "
            "or stop it."
        )
