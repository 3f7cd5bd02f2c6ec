"""Random layers of keras-cv without hidden random state.

The layers draw from `tf.random.Generator` objects and from stateful ops of
`tf.random`: what they draw depends on everything drawn before, so a training
run that was stopped could not go on where it was. Inside `stateless.draws`
every such draw is a stateless one, a function of a seed and of how many draws
came before it inside the same `with` block.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras

# Two threads that trace at once must not see each other's draws.
_LOCK = threading.RLock()


class _Draws:
    """The random functions that keras-cv calls, seeded by one tensor."""

    def __init__(self, seed: tf.Tensor):
        self._seed = seed
        self._count = 0

    def _next_seed(self) -> tf.Tensor:
        self._count += 1
        return tf.random.fold_in(self._seed, self._count)

    def uniform(
        self, shape, minval=0, maxval=None, dtype=tf.float32, seed=None
    ):
        del seed  # the seed of the block replaces the seed of the layer
        return tf.random.stateless_uniform(
            shape, self._next_seed(), minval, maxval, dtype
        )

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=tf.float32, seed=None):
        del seed
        return tf.random.stateless_normal(
            shape, self._next_seed(), mean, stddev, dtype
        )

    def gamma(self, shape, alpha, seed=None):
        del seed
        sample = tf.random.stateless_gamma(shape, self._next_seed(), alpha)
        # A quotient of two samples that underflow must not become 0 / 0.
        return tf.maximum(sample, np.finfo(np.float32).tiny)

    def shuffle(self, value, seed=None):
        del seed
        return tf.random.experimental.stateless_shuffle(
            value, self._next_seed()
        )


@contextlib.contextmanager
def draws(seed: tf.Tensor) -> Iterator[None]:
    """Makes what keras-cv layers draw inside the block a function of `seed`.

    Meant for the body of a function that TensorFlow traces: the block is
    entered once, while tracing, and the ops that it leaves in the graph are
    stateless. Outside of it `tf.random` is as it was.

    Args:
      seed: shape [2], int32 or int64.
    """
    source = _Draws(seed)

    def generator_uniform(generator: Any, *args: Any, **kwargs: Any):
        del generator
        return source.uniform(*args, **kwargs)

    with _replaced(
        (tf.random, "uniform", source.uniform),
        (tf.random, "normal", source.normal),
        (tf.random, "gamma", source.gamma),
        (tf.random, "shuffle", source.shuffle),
        (tf.random.Generator, "uniform", generator_uniform),
    ):
        yield


@contextlib.contextmanager
def layers() -> Iterator[None]:
    """Builds keras-cv layers in the block that `draws` can be used with.

    They compute in float32 whatever the precision of the model is, and leave
    the global generator alone (which does not exist when TensorFlow is told
    to be deterministic).
    """
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        with _replaced(
            (
                tf.random,
                "get_global_generator",
                lambda: tf.random.Generator.from_seed(0),
            )
        ):
            yield
    finally:
        keras.mixed_precision.set_global_policy(policy)


@contextlib.contextmanager
def _replaced(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
    """Sets attributes (owner, name, value), and sets them back at the end."""
    with _LOCK:
        originals = [getattr(owner, name) for owner, name, _ in replacements]
        try:
            for owner, name, value in replacements:
                setattr(owner, name, value)
            yield
        finally:
            for (owner, name, _), original in zip(
                replacements, originals, strict=True
            ):
                setattr(owner, name, original)
