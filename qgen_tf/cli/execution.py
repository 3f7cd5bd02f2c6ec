"""Flags that say how a program computes; what it computes stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    import tensorflow as tf


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


def start(
    strategy: flags.FlagHolder, deterministic: flags.FlagHolder, seed: int
) -> tf.distribute.Strategy:
    """Seeds this process, and returns the strategy to compute in.

    To be called before TensorFlow computes anything.

    Raises:
      ConfigError: the strategy is unknown, or has no devices here.
    """
    from qgen_tf import training

    # the first of all: it connects the workers
    chosen = training.get_strategy(strategy.value)
    training.make_deterministic(seed, operations=deterministic.value)
    return chosen
