"""Runs a float model and its quantized twins through every stage."""

from __future__ import annotations

import os

import ml_collections

from qgen_tf import errors, training
from qgen_tf.study import exporting, measuring


def trials(
    config: ml_collections.ConfigDict,
) -> list[ml_collections.ConfigDict]:
    """Returns the config of the float model and those of its twins.

    All share seed, data order and, through the float model that the twins are
    fine-tuned from, initial weights: their comparison is paired.

    Raises:
      ConfigError: a twin is not a pair of numbers.
    """
    twins = []
    for bits in config.twins:
        if len(bits) != 2 or not all(isinstance(bit, int) for bit in bits):
            raise errors.ConfigError(
                f"twins has {bits!r}: write pairs (weight_bits, "
                "activation_bits), such as ((8, 8), (4, 8))."
            )
        twins.append(training.with_bits(config, *bits))
    return [training.float_config(config), *twins]


def is_done(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> bool:
    """Whether every trial has gone through every stage."""
    return all(
        (path / "config.json").exists()
        and measuring.is_measured(path, config.measures)
        and exporting.is_verified(path)
        for path in (
            training.run_path(workdir, trial) for trial in trials(config)
        )
    )


def run(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> list[training.RunDirectory]:
    """Trains, measures, exports and verifies every trial.

    What is done already is left as it is; a killed sweep goes on where it
    stopped.

    Args:
      config: the float model; `config.twins` says which twins it has.
      workdir: folder of run directories.

    Returns:
      The runs, the float one first.

    Raises:
      UserError: a setting of any trial is wrong; then none has started.
    """
    planned = trials(config)
    for trial in planned:
        training.check(trial)
    runs = []
    for trial in planned:
        run = training.train(trial, workdir)
        measuring.measure(run.path, config.measures)
        exporting.verify(run.path)
        runs.append(run)
    return runs
