"""Runs a float model and its quantized twins through every stage."""

from __future__ import annotations

import os

import ml_collections

from qgen_tf import training
from qgen_tf.study import stages


def trials(
    config: ml_collections.ConfigDict,
) -> list[ml_collections.ConfigDict]:
    """Returns the config of the float model and those of its twins.

    All share seed, data order and, through the float model that the twins are
    fine-tuned from, initial weights: their comparison is paired.
    """
    twins = [training.with_bits(config, *bits) for bits in config.twins]
    return [training.float_config(config), *twins]


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
    """
    runs = []
    for trial in trials(config):
        run = training.train(trial, workdir)
        stages.measure(run.path, config.measures)
        stages.export(run.path)
        runs.append(run)
    return runs
