"""Damages what we read at random, and sees whether it is noticed.

An input may work, or be refused with a UserError. Everything else is a
mistake of ours: another exception, a crash, no end, memory without bounds. The
tests try some hundred inputs of each target; by hand, more:

  python -m tests.fuzz --target=config,run,records,tflite --inputs=5000
  python -m tests.fuzz --target=run --seed=0 --first=1234 --inputs=1
      one of them again, with its traceback
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import resource
import sys
import traceback

import tqdm

from tests.fuzz import targets

_MEMORY = 16 * 2**30  # bytes, of address space beyond what is taken at first


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--target",
        default=",".join(targets.TARGETS),
        help="which, with commas between them; default: %(default)s",
    )
    for name, default, meaning in (
        ("inputs", 2000, "how many of each"),
        ("seed", 0, "of the inputs"),
        ("first", 0, "number of the first input"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            help=f"{meaning}; default: %(default)s",
        )
    return parser.parse_args()


def _try(target: str, arguments: argparse.Namespace) -> int:
    """Tries a target and prints what came of it; returns how many mistakes."""
    refused: collections.Counter[str] = collections.Counter()
    mistakes: dict[str, list[int]] = {}
    numbers = range(arguments.first, arguments.first + arguments.inputs)
    with targets.opened(target) as attempt:
        for number in tqdm.tqdm(numbers, desc=target, unit="input"):
            try:
                _, refusals = attempt(arguments.seed, number)
            except Exception as error:
                if arguments.inputs == 1:
                    print(targets.describe(target, arguments.seed, number))
                    traceback.print_exc()
                mistakes.setdefault(_place(error), []).append(number)
            else:
                refused.update([*refusals])
    refusals = ", ".join(
        f"{name} {refused[name]}" for name in targets.TARGETS[target].STEPS
    )
    print(
        f"{target}: {arguments.inputs} inputs; refused by {refusals}; "
        f"mistakes of ours {sum(map(len, mistakes.values()))}"
    )
    for place, found in mistakes.items():
        print(
            f"  {len(found)} times {place}; for one: python -m tests.fuzz "
            f"--target={target} --seed={arguments.seed} --first={found[0]} "
            "--inputs=1"
        )
    return len(mistakes)


def _place(error: Exception) -> str:
    """Returns what was raised, and by which of our lines."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f
        for f in frames
        if "/qgen_tf/" in f.filename or "/export/" in f.filename
    ]
    last = (ours or frames)[-1]
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__} ({text}) at {last.filename}:{last.lineno}"


def main() -> None:
    """Runs the program; the status is 1 if there is a mistake of ours."""
    faulthandler.enable()
    arguments = _arguments()
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, taken + _MEMORY))
    chosen = arguments.target.split(",")
    sys.exit(any([_try(target, arguments) for target in chosen]))


if __name__ == "__main__":
    main()
