"""Files that appear whole or not at all, and what a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import tensorflow as tf

from qgen_tf import errors
from qgen_tf.training import strategies

# of files that are not finished
_PREFIX = ".writing-"

_UNWRITABLE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


@contextlib.contextmanager
def refusals(path: str | os.PathLike[str]) -> Iterator[None]:
    """Says in one sentence that the disk refuses to write `path`.

    Raises:
      RunDirectoryError: the disk is full, or nothing may be written there.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise errors.RunDirectoryError(
            f"cannot write {path}: {reason}; make room there or choose another "
            "place with --workdir or --output."
        ) from error


def _reason(error: OSError | tf.errors.OpError) -> str | None:
    """Returns what the operating system says, if that is a refusal."""
    if isinstance(error, FileExistsError):  # where a folder is to be made
        return os.strerror(errno.ENOTDIR)
    if isinstance(error, OSError) and error.errno is not None:
        known = error.errno in _UNWRITABLE
        return os.strerror(error.errno) if known else None
    # TensorFlow and HDF5 quote it
    reasons = map(os.strerror, _UNWRITABLE)
    return next((text for text in reasons if text in str(error)), None)


@contextlib.contextmanager
def atomic_path(
    path: pathlib.Path, *, num_bytes: int = 0
) -> Iterator[pathlib.Path]:
    """Gives a temporary path that becomes `path` if no exception is raised.

    The suffixes are kept, because writers choose a format by them. What a
    killed process left is cleared by the next one that writes the same file.
    Of several workers, only the chief's file is kept.

    Args:
      path: of the file, or of a folder of files.
      num_bytes: that must fit on the disk, which is found out first: HDF5 may
        crash the process where a disk fills up.

    Raises:
      RunDirectoryError: the disk is full, nothing may be written there, or
        another process writes the same file.
    """
    if not strategies.is_chief():
        path = strategies.scratch() / path.name
    target = path.with_name(f"{_PREFIX}{os.getpid()}-{path.name}")
    with refusals(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in leftovers(path):
                _remove(left)
            if num_bytes:
                _require_room(target, num_bytes)
            yield target
            _replace(target, path)
        finally:
            _remove(target)


def leftovers(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns what killed processes left that were writing a file."""
    name = re.compile(rf"{re.escape(_PREFIX)}(\d+-)?{re.escape(path.name)}")
    return [one for one in path.parent.iterdir() if name.fullmatch(one.name)]


def _replace(target: pathlib.Path, path: pathlib.Path) -> None:
    try:
        os.replace(target, path)
    except FileNotFoundError as error:
        raise errors.RunDirectoryError(
            f"{path} is being written by another process: wait for it to end, "
            "and run the command again."
        ) from error


def _remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, if it is there and that is allowed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _require_room(path: pathlib.Path, num_bytes: int) -> None:
    """Raises an OSError unless a file of that size can be written."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    path.unlink()
