"""What the command-line programs share: flags, help and errors."""

from __future__ import annotations

import atexit
import importlib
import os
import pathlib
import re
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import flags
from ml_collections import config_flags

import qgen_tf
from qgen_tf import errors
from qgen_tf.config import check_fields

CONFIGS = pathlib.Path(qgen_tf.__file__).parent.parent / "configs"

_USER_ERROR = 2
_INTERRUPTED = 130


def define_config() -> flags.FlagHolder:
    """Defines `--config=NAME_OR_PATH` and `--config.FIELD=VALUE`."""
    return config_flags.DEFINE_config_file(
        "config",
        help_string=(
            f"a lab note: {', '.join(_config_names())}, or the path of a file "
            "of your own with get_config(). --config.FIELD=VALUE changes a "
            "field, such as --config.quantization.weight_bits=4."
        ),
    )


def define_workdir() -> flags.FlagHolder:
    """Defines `--workdir`."""
    return flags.DEFINE_string("workdir", "runs", "folder of run directories.")


def require(holder: flags.FlagHolder) -> Any:
    """Returns the value of a flag.

    Raises:
      ConfigError: it was not given.
    """
    if holder.value is None:
        raise errors.ConfigError(
            f"--{holder.name} is missing: see --help for examples."
        )
    return holder.value


def require_config(holder: flags.FlagHolder) -> ml_collections.ConfigDict:
    """Returns the config, every field of which is there."""
    config = require(holder)
    check_fields(config)
    return config


def run(
    main: Callable[[], None], manual: str, holders: Sequence[flags.FlagHolder]
) -> None:
    """Parses the command line and calls `main`.

    A user's mistake is one line on standard error and exit status 2. Ctrl-C
    is one line and status 130, whatever error comes out after it: TensorFlow,
    interrupted amid something, may raise another in its place.

    Args:
      main: of the program.
      manual: what `--help` shows above the flags.
      holders: the program's flags.
    """
    program = pathlib.Path(sys.argv[0]).name
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(_help(manual, holders))
        sys.exit(0)
    interrupted = _interruption()
    try:
        _parse()
        _load_tensorflow()
        main()
    except BaseException as error:
        if interrupted.is_set() or isinstance(error, KeyboardInterrupt):
            print(
                f"{program}: interrupted; run the same command to go on.",
                file=sys.stderr,
            )
            _leave(_INTERRUPTED)
        if not isinstance(error, (errors.UserError, flags.Error)):
            raise
        message = " ".join(str(error).split())
        print(f"{program}: {message}", file=sys.stderr)
        sys.exit(_USER_ERROR)


def _interruption() -> threading.Event:
    """Returns what Ctrl-C sets, before it raises a KeyboardInterrupt."""
    interrupted = threading.Event()

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    # it is ignored in a job that a script started in the background
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    return interrupted


def _leave(status: int) -> NoReturn:
    """Ends the process at once; what is to be cleared away is.

    Python would take everything apart, and TensorFlow, which may be amid
    something, would crash.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _parse() -> None:
    # The config flag reads its overrides from sys.argv itself.
    sys.argv = [_with_config_path(argument) for argument in sys.argv]
    try:
        rest = flags.FLAGS(sys.argv)[1:]
    except flags.Error:
        raise
    except Exception as error:
        raise errors.ConfigError(_explained(error)) from error
    if rest:
        raise errors.ConfigError(
            f"{rest[0]!r} is not a flag: write --NAME=VALUE; see --help."
        )


def _load_tensorflow() -> None:
    """Imports TensorFlow without the lines that its libraries print.

    Whoever sets TF_CPP_MIN_LOG_LEVEL, to find out why a GPU is not used, sees
    them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        importlib.import_module("tensorflow").config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _explained(error: Exception) -> str:
    """Returns one sentence for what reading a config or an override raises."""
    text = str(error)
    if isinstance(error, AttributeError) and "no attribute" not in text:
        field, *rest = re.findall(r"\w+", text)  # 'x' Did you mean "y" ...
        hint = f" Did you mean {rest[3]!r}?" if len(rest) > 3 else ""
        return f"the config has no field {field!r}.{hint}"
    return f"the config cannot be loaded: {type(error).__name__}: {text}"


def _with_config_path(argument: str) -> str:
    """Replaces the name of a config that comes with the project by its path."""
    match = re.fullmatch(r"--?config=(.*)", argument)
    if match is None:
        return argument
    name = match[1]
    if name in _config_names():
        return f"--config={CONFIGS / name}.py"
    if not pathlib.Path(name).is_file():
        raise errors.ConfigError(
            f"there is no config {name!r}: choose one of {_config_names()} or "
            "give the path of a file."
        )
    return argument


def _config_names() -> list[str]:
    return sorted(
        path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__"
    )


def _help(manual: str, holders: Sequence[flags.FlagHolder]) -> str:
    lines = [manual.strip(), "", "Flags:"]
    for holder in holders:
        flag = flags.FLAGS[holder.name]
        default = f" Default: {flag.default}."
        if flag.default is None or isinstance(
            flag.default, ml_collections.ConfigDict
        ):
            default = ""
        lines.append(f"  --{holder.name}=...")
        lines += textwrap.wrap(
            f"{flag.help}{default}",
            76,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
        )
    return "\n".join(lines)
