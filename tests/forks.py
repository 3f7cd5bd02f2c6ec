"""Processes that are forked from one that has imported TensorFlow.

To import it takes longer than most of what is asked of a process of its own.
The one that is forked has not used TensorFlow yet, and ends with the tests.
"""

import importlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from tests import imports

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "qgen_tf.study.publishing",
        "qgen_tf.study.sweep",
        "qgen_tf.study.trial",
    ]
)


def command(name, *arguments):
    """Becomes a command of the project, such as "train"."""
    sys.argv = [f"qgen-{name}", *arguments]
    importlib.import_module(f"qgen_tf.cli.{name}").main()


def command_in_a_terminal(name, *arguments):
    """Becomes a command that Ctrl-C reaches, wherever the tests run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command(name, *arguments)


def start(outputs, function, *arguments, cwd=None):
    """Calls a function of a module that can be imported.

    Args:
      outputs: paths of files, to whose ends standard output and standard error
        are written.
      function: to call.
      *arguments: of it.
      cwd: its working directory; that of the tests if None.

    Returns:
      The `multiprocessing.Process`.
    """
    process = _context.Process(
        target=_enter, args=(outputs, cwd, function, arguments)
    )
    process.start()
    return process


def run(function, *arguments, cwd=None):
    """Calls a function; returns its `subprocess.CompletedProcess`."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder, name) for name in ("out", "err")]
        process = start(outputs, function, *arguments, cwd=cwd)
        process.join(300.0)
        status = process.exitcode
        process.close()  # raises where it has not ended
        return subprocess.CompletedProcess(
            function.__name__, status, *(path.read_text() for path in outputs)
        )


def _enter(outputs, cwd, function, arguments):
    os.environ["PYTHONPATH"] = str(imports.REPOSITORY)
    for number, path in enumerate(outputs, 1):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), number)
    if cwd is not None:
        os.chdir(cwd)
    function(*arguments)
