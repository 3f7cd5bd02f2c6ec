"""Disks that refuse to be written, and what stands on them."""

import contextlib
import os
import pathlib
import resource
import subprocess
import tempfile
from unittest import mock

import pytest

_NOBODY = 65534


@contextlib.contextmanager
def full(after=0):
    """Lets no file grow once so many have been finished.

    The kernel refuses, whoever writes: Python, TensorFlow, HDF5 or Arrow.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    finished = 0

    def fill_up():
        if finished == after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))

    def replace(*arguments, original=os.replace):
        nonlocal finished
        original(*arguments)
        finished += 1
        fill_up()

    try:
        with mock.patch.object(os, "replace", replace):
            fill_up()
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def mounted(folder, options):
    """Mounts an empty disk in memory; skips where that is not allowed.

    Gives a function that mounts it anew, with other options.
    """

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "disk", folder]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("no disk can be mounted here")

    mount(options)
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def public_folder():
    """A folder that everybody can read."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


@contextlib.contextmanager
def read_only(folder):
    """Forbids to write into a folder, also where root runs the tests."""
    inside = [folder, *folder.rglob("*")]
    for path in inside:
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(_NOBODY)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in inside:
            path.chmod(0o755 if path.is_dir() else 0o644)


def contents(folder):
    """Returns relative path -> bytes of all files that a stage leaves."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def unfinished(folder):
    """Returns the files that were begun only."""
    return sorted(folder.rglob(".writing-*"))
