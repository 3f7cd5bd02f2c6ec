"""Locks that a process holds while it writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from qgen_tf import errors
from qgen_tf.training import writing

# seconds; what a killed sweep leaves behind ends within them
WAIT = 30.0

_POLL = 0.1  # seconds
_LONGEST_NAME = 32  # bytes, of a process


@contextlib.contextmanager
@errors.typed
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
      RunDirectoryError: another process has held it for that long, or nothing
        may be written there.
    """
    path = pathlib.Path(path)
    with writing.refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # without truncation: it names the process that holds it
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _acquire(
            file, path, time.monotonic() + (WAIT if wait is None else wait)
        )
        with contextlib.suppress(OSError):  # a full disk can be locked
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _acquire(file: int, path: pathlib.Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_POLL)
                continue
        holder = os.pread(file, _LONGEST_NAME, 0).decode("ascii", "replace")
        raise errors.RunDirectoryError(
            f"{path.parent} is in use by process {holder.strip() or 'another'}"
            ": wait for it to end, or stop it."
        )
