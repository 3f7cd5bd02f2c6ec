"""How much loss and error rise when the weights move."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors, reading
from qgen_tf.compat import keras
from qgen_tf.measures.objective import Objective
from qgen_tf.measures.perturbations import Neighbourhood
from qgen_tf.measures.result import MeasureResult

_UNITS = {"loss": "nats", "error": "points"}


@dataclasses.dataclass(frozen=True)
class Rise:
    """Loss and accuracy without an offset and with it, on the same data.

    Attributes:
      zero: mean loss in nats and accuracy in [0, 1] without an offset.
      moved: likewise with it.
      num_passes: passes over these data that it took.
    """

    zero: tuple[float, float]
    moved: tuple[float, float]
    num_passes: int

    @property
    def loss(self) -> float:
        """Rise of the loss, in nats."""
        return self.moved[0] - self.zero[0]

    @property
    def error(self) -> float:
        """Rise of the error, in points."""
        return 100 * (self.zero[1] - self.moved[1])


def require_settings(measure: str, rho: float, m: int | None, of: str) -> None:
    """Raises a ConfigError if a setting that all rises have is wrong.

    Args:
      measure: its name, for the message.
      rho: radius.
      m: examples in a batch, or None.
      of: "loss" or "error".
    """
    if not 0 < rho < np.inf:
        raise errors.ConfigError(
            f"{measure} needs a finite rho > 0, not {rho}."
        )
    if m is not None and m < 1:
        raise errors.ConfigError(
            f"{measure} needs an m of at least 1, or None, not {m}."
        )
    if of not in _UNITS:
        raise errors.ConfigError(
            f"{measure} needs of='loss' or of='error', not {of!r}."
        )


def objectives(
    near: Neighbourhood, dataset: tf.data.Dataset, m: int | None
) -> Iterator[Objective]:
    """Gives the objective on each batch of m examples, or on all data.

    A rest of less than m examples is left out. A batch that is larger than
    those of the data set is computed in parts of their size.

    Raises:
      ConfigError: m is larger than the data set.
    """
    if m is None:
        yield near.objective
        return
    count = near.objective.num_examples
    if m > count:
        raise errors.ConfigError(
            f"m is {m}, and the data set has {count} examples: choose a "
            "smaller m, or None."
        )
    size = len(next(iter(dataset))[1])
    for batch in reading.untuned(dataset).rebatch(m, drop_remainder=True):
        examples = tf.data.Dataset.from_tensor_slices(batch)
        yield near.objective.on(examples.batch(size))


def require_finite(model: keras.Model, finite: bool, rho: float) -> None:
    """Raises a ModelError unless the loss was finite within rho."""
    if not finite:
        raise errors.ModelError(
            f"the loss of model {model.name!r} is not finite within a rho of "
            f"{rho}: choose a smaller one."
        )


def result(
    kind: str, rises: list[Rise], settings: dict[str, Any]
) -> MeasureResult:
    """Returns the mean of the rises over batches.

    Args:
      kind: of the ball or step, the beginning of the name.
      rises: of each batch, or one of all data.
      settings: of the result, `m` and `of` among them.
    """
    of = settings["of"]
    parts = [kind, "m" * (settings["m"] is not None), "error" * (of == "error")]
    values = [getattr(rise, of) for rise in rises]
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return MeasureResult(
        name="_".join([*filter(None, parts), "sharpness"]),
        value=float(np.mean(values)),
        unit=_UNITS[of],
        standard_error=float(spread / len(values) ** 0.5),
        converged=True,
        settings=settings,
        details={
            "accuracy": float(np.mean([rise.zero[1] for rise in rises])),
            "loss_rise": float(np.mean([rise.loss for rise in rises])),
            "error_rise": float(np.mean([rise.error for rise in rises])),
            "num_batches": len(rises),
            "num_passes": sum(rise.num_passes for rise in rises),
        },
    )
