"""What a process of a sweep does: one trial.

Imports TensorFlow when it is told to work, not before: what TensorFlow reads
from the environment is set by then.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any


def work(argument: Sequence[Any]) -> str | None:
    """Runs a trial in a process of its own.

    Args:
      argument: config, folder of run directories, working directory of the
        sweep, number of cores, whether a rerun gives the same bits.

    Returns:
      Why it failed, or None.
    """
    config, workdir, folder, cpus, deterministic = argument
    # TensorFlow and tqdm read these when they are imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["TQDM_DISABLE"] = "1"
    if folder.is_dir():
        os.chdir(folder)  # of relative paths in the config

    import tensorflow as tf

    from qgen_tf import training
    from qgen_tf.study import trial

    tf.config.threading.set_intra_op_parallelism_threads(cpus)
    tf.config.threading.set_inter_op_parallelism_threads(cpus)
    training.make_deterministic(config.seed, operations=deterministic)
    return trial.attempt(config, workdir)
