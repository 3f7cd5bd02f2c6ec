"""Runs TensorFlow Lite files in a child process, which they may crash.

The runtime trusts a file: one that is damaged, or made to harm, can end the
process that loads it, fill the memory or never return. In a child process that
is an `ExportError` here. It is a guard against crashes; a file that takes over
the child has the rights of whoever runs it.

The child is `export.sandbox_child`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import connection
from typing import Any

import numpy as np

from export.model_file import require_content
from export.sandbox_child import receive, send
from qgen_tf import errors

# far more than a load, or a batch of any network, takes
TIMEOUT = 60.0
MEMORY = 4 * 2**30

_START_TIMEOUT = 120.0
_ERRORS = {
    kind.__name__: kind
    for kind in (errors.ConfigError, errors.DataError, errors.ExportError)
}


def probe(
    content: bytes, *, sandbox: Sandbox | None = None, **settings: Any
) -> None:
    """Reads, loads and runs a file once, on zeros, in a child process.

    Args:
      content: of the file.
      sandbox: one that is open, to spare starting another.
      **settings: of the `Interpreter`.

    Raises:
      ExportError: that fails, or ends the child.
    """
    if sandbox is None:
        with Sandbox() as sandbox:
            sandbox.ask("probe", _bytes(content), **settings)
    else:
        sandbox.ask("probe", _bytes(content), **settings)


class SandboxedInterpreter:
    """An `Interpreter` whose file runs in a child process.

    Attributes:
      output_step_size: scale of an integer output, or None if it is float.
    """

    def __init__(
        self,
        content: bytes,
        *,
        timeout: float = TIMEOUT,
        memory: int = MEMORY,
        **settings: Any,
    ):
        """Starts the child and loads a file in it.

        Args:
          content: of the file.
          timeout: seconds that a call may take.
          memory: bytes that the file may take beyond those of the child.
          **settings: of the `Interpreter`.

        Raises:
          ExportError: the file cannot be loaded, or ends the child.
        """
        self._sandbox = Sandbox(timeout=timeout, memory=memory)
        try:
            reply, _ = self._sandbox.ask("load", _bytes(content), **settings)
        except errors.UserError:
            self.close()
            raise
        self.output_step_size: float | None = reply["output_step_size"]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Interpreter.predict`; an ExportError if the child ends."""
        return self._sandbox.ask("predict", images)[1]

    def output_levels(self, images: np.ndarray) -> np.ndarray:
        """See `Interpreter.output_levels` and `predict`."""
        return self._sandbox.ask("output_levels", images)[1]

    def close(self) -> None:
        """Ends the child."""
        self._sandbox.close()

    def __enter__(self) -> SandboxedInterpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sandbox:
    """A child process that loads and runs files.

    It starts with the first call, and again with the first one after it ended.
    """

    def __init__(self, *, timeout: float = TIMEOUT, memory: int = MEMORY):
        """Starts nothing yet.

        Args:
          timeout: seconds that a call may take.
          memory: bytes that the child may take beyond those it starts with.
        """
        self._timeout = timeout
        self._memory = memory
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts the child.

        Raises:
          ExportError: it does not start.
        """
        self._connection, theirs = connection.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "export.sandbox_child"),
                    *(str(theirs.fileno()), str(self._memory)),
                ],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            if not self._connection.poll(_START_TIMEOUT):
                raise TimeoutError
            receive(self._connection)
        except (EOFError, OSError) as error:
            self.close()
            raise errors.ExportError(
                "the child process for files that are not trusted does not "
                f"start: run `{sys.executable} -m export.sandbox_child` to see "
                "why."
            ) from error

    def ask(
        self, call: str, array: np.ndarray, **settings: Any
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Has the child do something.

        Args:
          call: "probe", "load", "predict" or "output_levels".
          array: the bytes of a file, or images.
          **settings: of the `Interpreter`.

        Returns:
          What the child says, and an array.

        Raises:
          ExportError: the file cannot be run, or ends the child.
          DataError: the images do not fit the file.
          ConfigError: a setting has another type.
        """
        if self._process is None:
            self.start()
        try:
            send(self._connection, {"call": call, **settings}, array)
            if not self._connection.poll(self._timeout):
                raise TimeoutError
            reply, outputs = receive(self._connection)
        except (EOFError, OSError) as error:
            is_late = isinstance(error, TimeoutError)
            raise self._death(self._timeout if is_late else None) from error
        if "error" in reply:
            raise _ERRORS[reply["error"]](reply["message"])
        return reply, outputs

    def close(self) -> None:
        """Ends the child, if it runs."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _death(self, timeout: float | None) -> errors.ExportError:
        """Ends the child; returns the error that says how it died."""
        assert self._process is not None
        if timeout is not None:
            how = f"does not finish in {timeout:g} s"
        else:
            status = self._process.wait()
            name = signal.Signals(-status).name if status < 0 else str(status)
            how = f"crashes with {name}"
        self.close()
        return errors.ExportError(
            f"the runtime {how} on this file: it is damaged, or no file for "
            "this runtime."
        )

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bytes(content: bytes) -> np.ndarray:
    require_content(content)
    return np.frombuffer(content, np.uint8)
