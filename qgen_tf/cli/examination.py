"""Runs a check in a process of its own, which it may crash or hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent import futures
from multiprocessing.connection import Connection

from qgen_tf import errors
from qgen_tf.cli.checks import PROBLEM, Check, Finding

TIMEOUT = 180.0  # seconds of a check; the first import of a day takes many

# each imports TensorFlow, that is half a gigabyte
_MOST_PROCESSES = 4


def examine_all(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yields what checks find, in their order; several run at a time."""
    workers = min(_MOST_PROCESSES, os.cpu_count() or 1)
    with futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(examine, checks)


def examine(check: Check, *, timeout: float = TIMEOUT) -> Finding:
    """Returns what a check finds; whatever goes wrong is a problem found.

    Args:
      check: that can be imported by name. What it prints is not shown.
      timeout: seconds after which it is given up.
    """
    # A process that is forked would share the state of TensorFlow.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, check), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            return Finding(
                PROBLEM,
                f"not done after {timeout:.0f} seconds: see what else keeps "
                "this machine busy, and try again.",
            )
        return Finding(*receiver.recv())
    except EOFError:
        process.join()
        return Finding(PROBLEM, _crash(process.exitcode))
    finally:
        process.kill()
        process.join()
        receiver.close()


def _answer(sender: Connection, check: Check) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    finding = attempt(check)
    sender.send((finding.status, finding.text))


def attempt(check: Check) -> Finding:
    """Returns what a check finds; an exception is a problem found."""
    try:
        return check()
    except errors.UserError as error:
        return Finding(PROBLEM, " ".join(str(error).split()))
    except Exception as error:
        message = " ".join(str(error).split())
        return Finding(
            PROBLEM,
            f"fails with {type(error).__name__}"
            f"{': ' * bool(message)}{message}; install qgen_tf in a fresh "
            "environment and try again.",
        )


def _crash(exit_code: int | None) -> str:
    """Returns a sentence for a process that ended without an answer."""
    cause = f"status {exit_code}"
    if exit_code is not None and exit_code < 0:
        cause = signal.Signals(-exit_code).name
    hint = {
        "SIGILL": "this CPU lacks instructions (AVX) that a package was "
        "built for: use another machine or build of it",
        "SIGKILL": "the memory may be full: close other programs",
    }.get(cause, "install qgen_tf in a fresh environment")
    return f"the process crashed ({cause}): {hint}, and try again."
