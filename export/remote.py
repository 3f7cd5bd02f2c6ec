"""Runs a bundle on a device that adb or ssh reaches."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Sequence
from typing import TypeAlias

from export import bundle, device_result, run_on_device
from qgen_tf import errors

_ANSWER_SECONDS = 60
_COPY_SECONDS = 3600
_RUN_SECONDS = 12 * 3600

_HOST = re.compile(r"(?:[a-zA-Z0-9_][\w.-]*@)?[a-zA-Z0-9_][\w.-]*", re.ASCII)
_NO_CONNECTION = 255  # exit status of ssh and scp
_NOT_FOUND = 127  # exit status of a shell


@dataclasses.dataclass(frozen=True)
class Adb:
    """An Android device at the end of `adb`, with a python3 for its shell.

    Of several devices, the environment variable ANDROID_SERIAL chooses one.
    """

    folder = "/data/local/tmp"
    name = "the Android device"

    def shell(self, command: str) -> list[str]:
        """Returns the arguments that run a command of the device's shell."""
        return ["adb", "shell", command]

    def push(self, files: Sequence[str], folder: str) -> list[str]:
        """Returns the arguments that copy files into a folder there."""
        return ["adb", "push", *files, f"{folder}/"]

    def fetch(self, file: str, here: str) -> list[str]:
        """Returns the arguments that copy a file from there."""
        return ["adb", "pull", file, here]


@dataclasses.dataclass(frozen=True)
class Ssh:
    """A device that ssh reaches without a password.

    Attributes:
      host: a name, an address or USER@NAME, as in ~/.ssh/config, which is also
        the place for a port.
    """

    host: str

    folder = "."
    _options = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15")

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise errors.ConfigError(
                f"{self.host!r} is not a host to ssh to: write NAME or "
                "USER@NAME, and put a port or the like into ~/.ssh/config."
            )

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.host

    def shell(self, command: str) -> list[str]:
        """Returns the arguments that run a command of the device's shell."""
        return ["ssh", *self._options, "--", self.host, command]

    def push(self, files: Sequence[str], folder: str) -> list[str]:
        """Returns the arguments that copy files into a folder there."""
        target = f"{self.host}:{folder}/"
        return ["scp", "-q", *self._options, "--", *files, target]

    def fetch(self, file: str, here: str) -> list[str]:
        """Returns the arguments that copy a file from there."""
        source = f"{self.host}:{file}"
        return ["scp", "-q", *self._options, "--", source, here]


Target: TypeAlias = Adb | Ssh


def run(
    bundle_folder: str | os.PathLike[str], *, target: Target
) -> pathlib.Path:
    """Copies a bundle to a device, runs it there and fetches the result.

    What the device prints is printed. The folder on the device is removed
    again.

    Args:
      bundle_folder: with the bundle.
      target: the device; it needs Python 3.9 or newer, numpy and
        ai-edge-litert.

    Returns:
      The path of device_result.json in the folder of the bundle.

    Raises:
      UserError: the bundle is not as it was written; adb, ssh or scp is
        missing; the device does not answer or lacks something.
    """
    folder = pathlib.Path(bundle_folder).resolve()
    manifest = bundle.read_manifest(folder)
    identity = run_on_device.bundle_id(str(folder))
    there = f"{target.folder}/qgen_tf-{identity[:16]}"
    names = [run_on_device.MANIFEST_FILE, *manifest["files"]]
    clear = target.shell(f"rm -rf {there}")
    _call(target, target.shell(f"rm -rf {there} && mkdir {there}"))
    try:
        # with ./, no name reads as an option or a host
        files = [f"./{name}" for name in names]
        _call(target, target.push(files, there), _COPY_SECONDS, folder)
        command = f"cd {there} && python3 run_on_device.py"
        _call(target, target.shell(command), _RUN_SECONDS, show=True)
        return _fetch(target, there, folder, identity)
    finally:
        with contextlib.suppress(errors.ExportError):
            _call(target, clear)


def _fetch(
    target: Target, there: str, folder: pathlib.Path, identity: str
) -> pathlib.Path:
    """Fetches the result; a damaged one is not left in the folder."""
    name = run_on_device.RESULT_FILE
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as new:
        _call(target, target.fetch(f"{there}/{name}", f"./{name}"), cwd=new)
        path = pathlib.Path(new) / name
        if device_result.read(path).bundle != identity:
            raise errors.ExportError(
                f"{target.name} gave back the result of another bundle: run "
                "it again."
            )
        os.replace(path, folder / name)
    return folder / name


def _call(
    target: Target,
    arguments: Sequence[str],
    seconds: int = _ANSWER_SECONDS,
    cwd: str | os.PathLike[str] | None = None,
    *,
    show: bool = False,
) -> None:
    """Runs a program of this machine, which talks to the device.

    Args:
      target: the device.
      arguments: the program and its arguments.
      seconds: after which it is stopped.
      cwd: where it runs.
      show: whether its output is shown.

    Raises:
      ExportError: it is missing, does not end, or fails.
    """
    program = arguments[0]
    try:
        done = subprocess.run(
            arguments,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except FileNotFoundError:
        raise errors.ExportError(
            f"{program} is not installed on this machine: install it, or copy "
            "the bundle to the device yourself and run python3 "
            "run_on_device.py there."
        ) from None
    except subprocess.TimeoutExpired:
        raise errors.ExportError(
            f"{target.name} did not answer {program} within {seconds} seconds."
        ) from None
    if done.returncode:
        raise errors.ExportError(_explained(target, program, done, show))


def _explained(
    target: Target,
    program: str,
    done: subprocess.CompletedProcess[str],
    is_run: bool,
) -> str:
    """Returns one sentence for what went wrong."""
    said = (done.stderr.strip().splitlines() or ["no message"])[-1].strip()
    if program != "adb" and done.returncode == _NO_CONNECTION:
        return (
            f"{program} cannot reach {target.name} ({said}): check the name, "
            "and that a key lets you in without a password."
        )
    if is_run and done.returncode == _NOT_FOUND:
        return (
            f"there is no python3 on {target.name} ({said}): install Python "
            "3.9 or newer there, with numpy and ai-edge-litert."
        )
    return (
        f"{program} failed on {target.name} with exit status "
        f"{done.returncode}: {said}"
    )
