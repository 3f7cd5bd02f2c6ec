"""Optimizers with a cosine schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from qgen_tf import errors
from qgen_tf.compat import keras

OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adamw": keras.optimizers.AdamW,
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
}

# Shrinking these would change the function, or the grid, without shrinking
# the weights.
_NO_WEIGHT_DECAY = [
    *("bias", "gamma", "beta", "log_step"),
    *("position_embedding", "class_token"),
]


def build(
    settings: Any, *, learning_rate: float, steps: int, warmup_steps: int
) -> keras.optimizers.Optimizer:
    """Returns an optimizer whose learning rate warms up and decays to zero.

    Args:
      settings: the `training` part of a config.
      learning_rate: peak.
      steps: of the whole training.
      warmup_steps: of linear warm-up from zero, counted in `steps`.

    Raises:
      ConfigError: a setting is unknown or out of range.
    """
    if settings.optimizer not in OPTIMIZERS:
        raise errors.ConfigError(
            f"training.optimizer {settings.optimizer!r} is unknown: choose "
            f"one of {sorted(OPTIMIZERS)}."
        )
    if not (errors.is_finite(learning_rate) and learning_rate > 0):
        raise errors.ConfigError(
            f"learning_rate is {learning_rate!r}: it must be a number above 0."
        )
    decay = settings.weight_decay
    if not (errors.is_finite(decay) and decay >= 0):
        raise errors.ConfigError(
            f"training.weight_decay is {decay!r}: it must be a number, 0 or "
            "more."
        )
    warmup_steps = min(warmup_steps, steps - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else learning_rate,
        steps - warmup_steps,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer = OPTIMIZERS[settings.optimizer](
        schedule, weight_decay=settings.weight_decay
    )
    optimizer.exclude_from_weight_decay(var_names=_NO_WEIGHT_DECAY)
    return optimizer
