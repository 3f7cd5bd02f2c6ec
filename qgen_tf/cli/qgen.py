"""`qgen`: the commands of qgen_tf, by name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys

import qgen_tf

_USER_ERROR = 2


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, and how it is introduced.

    Attributes:
      summary: what it does, in one line.
      example: its arguments.
    """

    summary: str
    example: str


# A command is a module of this package with a `main`. It is imported when it
# is called, since the flags of all of them share one namespace.
COMMANDS = {
    "sweep": Command(
        "trains float models and their quantized twins, to the report",
        "--config=quickstart",
    ),
    "train": Command(
        "trains one model into a run directory",
        "--config=quickstart --config.quantization.weight_bits=4",
    ),
    "measure": Command(
        "measures gap, noise and flatness of a trained model",
        "--run_dir=runs/quickstart-w4a8-0123abcd --measures=all",
    ),
    "export": Command(
        "exports a trained model and proves that the file is it",
        "--run_dir=runs/quickstart-w4a8-0123abcd --verify",
    ),
    "report": Command(
        "writes the table and the HTML report of finished runs",
        "--workdir=runs --name=quickstart",
    ),
    "figure": Command(
        "draws trained models",
        "--kind=bin_width --output=widths.svg \\\n"
        "      --run_dirs=runs/quickstart-w4a8-0123abcd",
    ),
    "doctor": Command(
        "checks this machine and says how to mend what is wrong",
        "--workdir=runs",
    ),
}


def manual() -> str:
    """Returns what `qgen --help` shows."""
    lines = [
        "Does the quantized model generalize as well as the trained one?",
        "",
        "Usage: qgen COMMAND --FLAG=VALUE ...",
        "       qgen COMMAND --help",
        "       qgen --version",
        "",
        "Commands; `qgen train` is `qgen-train`, and so on:",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:8} {command.summary}")
    lines += ["", "Examples:"]
    for name, command in COMMANDS.items():
        lines.append(f"  qgen {name} {command.example}")
    return "\n".join(lines)


def main() -> None:
    """Runs the program."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "-help", "help"):
        print(manual())
    elif name == "--version":
        print(f"qgen_tf {qgen_tf.__version__}")
    elif name in COMMANDS:
        sys.argv = [f"qgen-{name}", *arguments]
        importlib.import_module(f"qgen_tf.cli.{name}").main()
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        print(
            f"qgen: there is no command {name!r}: {hint}see qgen --help.",
            file=sys.stderr,
        )
        sys.exit(_USER_ERROR)


if __name__ == "__main__":
    main()
