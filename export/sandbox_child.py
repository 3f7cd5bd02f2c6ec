"""The child process of a `sandbox`, which a file may crash.

It talks JSON and arrays, no pickles, and does not import TensorFlow.
"""

from __future__ import annotations

import json
import pathlib
import resource
import sys
from multiprocessing import connection
from typing import Any

import numpy as np

from export.interpreter import Interpreter
from export.model_file import parse
from export.weights import read_weights
from qgen_tf import errors


def send(
    channel: connection.Connection, header: dict[str, Any], array: np.ndarray
) -> None:
    """Sends what JSON can say, and an array."""
    kind = {"dtype": array.dtype.name, "shape": array.shape}
    channel.send_bytes(json.dumps([header, kind]).encode())
    channel.send_bytes(array.tobytes())


def receive(
    channel: connection.Connection,
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what `send` sent; an EOFError if the other side is gone."""
    header, kind = json.loads(channel.recv_bytes())
    array = np.frombuffer(channel.recv_bytes(), kind["dtype"])
    return header, array.reshape(kind["shape"])


class _Server:
    """Holds a file and does what it is asked for."""

    def __init__(self) -> None:
        self._interpreter: Interpreter | None = None

    def answer(
        self, call: str, array: np.ndarray, **settings: Any
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Does what `Sandbox.ask` asks for."""
        if call in ("probe", "load"):
            model = parse(array.tobytes())
            self._interpreter = Interpreter(array.tobytes(), **settings)
            step_size = self._interpreter.output_step_size
            if call == "load":
                return {"output_step_size": step_size}, np.zeros(0)
            read_weights(model)
            count = self._interpreter.batch_size
            shape = (count, *self._interpreter.input_shape)
            array, call = np.zeros(shape, np.float32), "output_levels"
        if self._interpreter is None:
            raise errors.ExportError(
                "the child process that held the file has ended: load the file "
                "again."
            )
        return {}, getattr(self._interpreter, call)(array)

    def serve(self, channel: connection.Connection) -> None:
        """Answers until the other side is gone."""
        send(channel, {}, np.zeros(0))
        while True:
            try:
                request, array = receive(channel)
            except EOFError:
                return
            try:
                reply, outputs = self.answer(array=array, **request)
            except errors.UserError as error:
                reply = {"error": type(error).__name__, "message": str(error)}
                outputs = np.zeros(0)
            except Exception as error:
                message = (
                    f"this file cannot be run: {type(error).__name__}: {error}"
                )
                reply = {"error": "ExportError", "message": message}
                outputs = np.zeros(0)
            send(channel, reply, outputs)


def _limit(memory: int) -> None:
    """Lets this process take so many bytes more, and dump no core."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Runs the child."""
    handle, memory = map(int, sys.argv[1:])
    _limit(memory)
    _Server().serve(connection.Connection(handle))


if __name__ == "__main__":
    main()
