"""What can be damaged, and whether it is noticed.

Whatever is handed in, reading it must succeed or raise a `UserError`.
"""

from __future__ import annotations

import contextlib
import signal
import types
from collections.abc import Callable, Iterator

import numpy as np

from qgen_tf import errors
from tests.fuzz import configs, files, runs, tables

# each has `make`, `trying`, `STEPS`, and `CHAINED`: whether a step needs those
# before it
TARGETS: dict[str, types.ModuleType] = {
    "config": configs,
    "run": runs,
    "records": tables,
    "tflite": files,
}
SECONDS = 120  # that an input may take; the machine may be busy


@contextlib.contextmanager
def opened(
    target: str,
) -> Iterator[Callable[[int, int], tuple[str, dict[str, str]]]]:
    """Gives a function that tries an input, of a seed and a number.

    It returns what the input is, and the steps that refused it, with what they
    said. Whatever is raised but a UserError, or takes too long, is a mistake
    of ours.
    """
    module = TARGETS[target]
    with module.trying() as steps_of:

        def attempt(seed: int, number: int) -> tuple[str, dict[str, str]]:
            generator = np.random.default_rng((seed, number))
            how, given = module.make(generator)
            refusals: dict[str, str] = {}
            with _limited():
                for name, step in steps_of(given).items():
                    try:
                        step()
                    except errors.UserError as error:
                        refusals[name] = str(error)
                        assert refusals[name], name
                        if module.CHAINED:
                            break
            return how, refusals

        yield attempt


def describe(target: str, seed: int, number: int) -> str:
    """Returns what an input is."""
    return TARGETS[target].make(np.random.default_rng((seed, number)))[0]


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises a TimeoutError for what takes too long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
