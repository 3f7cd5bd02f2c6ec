"""The generalization gap, with its uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from qgen_tf import errors
from qgen_tf.measures.evaluate import Evaluation

CONFIDENCE = 0.95
_RESAMPLES = 2000
_BATCH_ELEMENTS = 2**21  # resampled at a time: tens of megabytes


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap confidence interval.

    Attributes:
      value: the estimate.
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class GeneralizationGap:
    """Train minus test, in loss and in accuracy.

    A model that fits its training set better than it generalizes has a loss
    gap below zero (it loses less on what it has seen) and an accuracy gap
    above zero (it is right more often). Closer to zero is better; the opposite
    sign means that the test set is the easier one for it.

    Attributes:
      loss: gap in nats.
      accuracy: gap in points.
    """

    loss: Interval
    accuracy: Interval


@errors.typed
def generalization_gap(
    train: Evaluation, test: Evaluation, *, seed: int = 0
) -> GeneralizationGap:
    """Returns the gap between two evaluations of one model.

    Args:
      train: on the training set, without augmentation.
      test: on the test set.
      seed: of the bootstrap.

    Raises:
      DataError: an argument is no evaluation.
    """
    _require_evaluations([train, test])
    return GeneralizationGap(
        loss=bootstrap_gap(train.losses, test.losses, seed=seed),
        accuracy=bootstrap_gap(
            100.0 * train.correct, 100.0 * test.correct, seed=seed
        ),
    )


@errors.typed
def gap_difference(
    ours: tuple[Evaluation, Evaluation],
    theirs: tuple[Evaluation, Evaluation],
    *,
    seed: int = 0,
) -> GeneralizationGap:
    """Returns how far the gaps of two models differ: first minus second.

    The models are compared example by example (paired bootstrap): what both
    get right or wrong cancels, and the interval is as narrow as the models
    are alike.

    Args:
      ours: (train, test) evaluations of the first model.
      theirs: of the second, on the same examples in the same order.
      seed: of the bootstrap.

    Raises:
      DataError: the numbers of examples differ, or an argument is no pair of
        evaluations.
    """
    for pair in (ours, theirs):
        _require_evaluations(pair)
    require_pairs(ours, theirs)
    (train_a, test_a), (train_b, test_b) = ours, theirs
    return GeneralizationGap(
        loss=bootstrap_gap(
            train_a.losses - train_b.losses,
            test_a.losses - test_b.losses,
            seed=seed,
        ),
        accuracy=bootstrap_gap(
            100.0 * train_a.correct - 100.0 * train_b.correct,
            100.0 * test_a.correct - 100.0 * test_b.correct,
            seed=seed,
        ),
    )


def require_pairs(
    ours: Sequence[Evaluation], theirs: Sequence[Evaluation]
) -> None:
    """Raises a DataError unless both models saw equally many examples."""
    for a, b in zip(ours, theirs, strict=True):
        if len(a.losses) != len(b.losses):
            raise errors.DataError(
                "a paired comparison needs both models on the same examples, "
                f"not on {len(a.losses)} and {len(b.losses)}."
            )


def _require_evaluations(pair: Any) -> None:
    """Raises a DataError unless it holds evaluations on train and test."""
    found = pair if isinstance(pair, Sequence) else [pair]
    if [isinstance(each, Evaluation) for each in found] != [True, True]:
        kinds = ", ".join(type(each).__name__ for each in found)
        raise errors.DataError(
            "a gap is that of two evaluations of a model, on its training and "
            f"its test set, not of {kinds}: pass what measures.evaluate "
            "returns."
        )


def bootstrap_gap(
    train: np.ndarray, test: np.ndarray, *, seed: int
) -> Interval:
    """Returns mean(train) - mean(test) with its 95 % percentile interval.

    Args:
      train: a value for each training example.
      test: a value for each test example; resampled independently.
      seed: of the resampling.
    """
    value = train.mean(dtype=np.float64) - test.mean(dtype=np.float64)
    interval = scipy.stats.bootstrap(
        (train.astype(np.float64), test.astype(np.float64)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH_ELEMENTS // max(len(train), len(test))),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(value), float(interval.low), float(interval.high))
