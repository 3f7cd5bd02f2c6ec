"""Where a model is trained: one device, several, or several machines."""

from __future__ import annotations

import atexit
import functools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras

Strategy: TypeAlias = tf.distribute.Strategy


def _one_device() -> Strategy:
    return tf.distribute.get_strategy()


def _multi_worker_mirrored() -> Strategy:
    text = os.environ.get("TF_CONFIG", "")
    try:
        content = json.loads(text)
        group = content["cluster"][content["task"]["type"]]
        group[content["task"]["index"]]
    except (ValueError, KeyError, IndexError, TypeError):
        raise errors.ConfigError(
            f"multi_worker_mirrored reads the environment variable TF_CONFIG, "
            f"which is {text!r}: set it in each process to "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, '
            '"task": {"type": "worker", "index": N}}, N from 0.'
        ) from None
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu() -> Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise errors.ConfigError(
            f"there is no TPU ({error}): set the environment variable TPU_NAME "
            "to it, or choose another strategy."
        ) from error


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "one_device": _one_device,
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker_mirrored": _multi_worker_mirrored,
    "tpu": _tpu,
}


def get_strategy(name: str) -> Strategy:
    """Returns how training and measuring are spread over devices.

    In its `scope()`, `train` and the measures use all its replicas. What they
    return is the same up to the order of sums, since a batch is still the one
    of the config: each replica takes its share.

        with training.get_strategy("mirrored").scope():
            training.train(config, "runs")

    Args:
      name: one_device; mirrored: the GPUs of this machine, its CPUs where it
        has none; multi_worker_mirrored: the machines that TF_CONFIG names,
        before TensorFlow computes anything; tpu: that of TPU_NAME.

    Raises:
      ConfigError: the name is unknown, or there are no such devices.
    """
    if name not in list(STRATEGIES):
        raise errors.ConfigError(
            f"strategy {name!r} is unknown: choose one of {list(STRATEGIES)}."
        )
    return STRATEGIES[name]()


def num_replicas() -> int:
    """Returns how many replicas share a batch, in the scope at hand."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def is_chief() -> bool:
    """Whether this process writes files: one of several workers does."""
    return tf.distribute.get_strategy().extended.should_checkpoint


@functools.cache
def scratch() -> pathlib.Path:
    """Returns a folder that this process may write; it ends with it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="qgen-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _has_workers() -> bool:
    return isinstance(
        tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy
    )


def from_chief(value: float) -> float:
    """Returns the number that the chief has.

    Every worker waits here for all others.
    """
    if not _has_workers():
        return value
    (number,) = _from_chief([np.float64(value)])
    return float(number)


def share(model: keras.Model) -> None:
    """Gives the weights of the chief to every worker, bit by bit.

    Only a zero may lose its sign.
    """
    if _has_workers():
        model.set_weights(_from_chief(model.get_weights()))


def _from_chief(arrays: list[Any]) -> list[np.ndarray]:
    """Returns the arrays of the chief, in one exchange."""
    strategy = tf.distribute.get_strategy()

    def of_the_first() -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group == 0
        mine = [
            tf.where(first, array, tf.zeros_like(array)) for array in arrays
        ]
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    results = strategy.run(of_the_first)
    return [
        strategy.experimental_local_results(result)[0].numpy()
        for result in results
    ]
