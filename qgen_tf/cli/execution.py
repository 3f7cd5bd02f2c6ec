"""Flags that say how a program computes; what it computes stays the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from absl import flags

from qgen_tf import errors


def define_strategy() -> flags.FlagHolder:
    """Defines `--strategy`."""
    return flags.DEFINE_string(
        "strategy",
        "one_device",
        "one_device; mirrored: all GPUs of this machine; "
        "multi_worker_mirrored: the machines that TF_CONFIG names, each of "
        "which runs this command; tpu. The numbers are those of one device.",
    )


def define_deterministic() -> flags.FlagHolder:
    """Defines `--[no]deterministic`."""
    return flags.DEFINE_bool(
        "deterministic",
        True,
        "whether a rerun on the same machine gives the same bits; "
        "--nodeterministic may be faster, above all on GPUs.",
    )


@contextlib.contextmanager
def scope(
    strategy: flags.FlagHolder, deterministic: flags.FlagHolder, *, seed: int
) -> Iterator[None]:
    """Computes as the flags say; comes before TensorFlow computes anything.

    Raises:
      ConfigError: the strategy is unknown, or has no devices here.
      UserError: another worker has ended.
    """
    import tensorflow as tf

    from qgen_tf import training

    # the first of all: it connects the workers
    chosen = training.get_strategy(strategy.value)
    training.make_deterministic(seed, operations=deterministic.value)
    try:
        with chosen.scope():
            yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise errors.UserError(
            "another worker has ended, and none can go on alone: see what it "
            "says, and run the command on all of them again; it goes on after "
            "the last epoch."
        ) from error
