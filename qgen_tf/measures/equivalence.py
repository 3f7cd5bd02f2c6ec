"""Are two gaps the same? Equivalence within a margin, and McNemar's test."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

from qgen_tf import errors
from qgen_tf.measures.evaluate import Evaluation
from qgen_tf.measures.generalization_gap import Interval, require_pairs

LEVEL = 0.05
VERDICTS = ("same", "different", "cannot tell")


@dataclasses.dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests of a difference in accuracy, or in its gap.

    Attributes:
      margin: largest difference that counts as none, in points.
      p_lower: p-value against a difference of `-margin` or less.
      p_upper: p-value against a difference of `margin` or more.
      p_value: the larger of the two: that of both tests together.
      low: lower end of the 90 % interval of the difference, in points.
      high: upper end.
      equivalent: whether both tests reject at 5 %; then, and only then, the
        90 % interval lies within the margin.
    """

    margin: float
    p_lower: float
    p_upper: float
    p_value: float
    low: float
    high: float
    equivalent: bool


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two models on the same examples.

    Attributes:
      only_ours: number of examples that only the first model gets right.
      only_theirs: number that only the second gets right.
      p_value: probability of a split that is as uneven or more, were each of
        these examples as likely to fall to either side; 1 if there are none.
    """

    only_ours: int
    only_theirs: int
    p_value: float


def equivalence(
    ours: tuple[Evaluation, Evaluation],
    theirs: tuple[Evaluation, Evaluation],
    *,
    margin: float,
) -> Equivalence:
    """Tests whether the accuracy gaps of two models differ by less than asked.

    With d the difference of the two models on an example (100 points where
    only the first is right, -100 where only the second is, else 0), the gaps
    differ by D = mean(d on train) - mean(d on test). Training and test
    examples are independent, so D has the standard error
    s = sqrt(var_train / n_train + var_test / n_test) and Welch's degrees of
    freedom; both tests take Student's t of (D + margin) / s and of
    (D - margin) / s. Where the models are right on the same examples, s is 0
    and so is the p-value of what lies inside of the margin: nothing was found
    that differs, which says little of a few examples.

    Sources: Schuirmann, "A comparison of the two one-sided tests procedure",
    J. Pharmacokinetics and Biopharmaceutics 15 (1987); Welch, "The
    generalization of 'Student's' problem", Biometrika 34 (1947).

    Args:
      ours: (train, test) evaluations of the first model.
      theirs: of the second, on the same examples in the same order.
      margin: positive, in points.

    Raises:
      ConfigError: the margin is not positive.
      DataError: the numbers of examples differ, or a split has only one.
    """
    require_pairs(ours, theirs)
    train, test = map(_differences, ours, theirs)
    return _tested(
        train.mean() - test.mean(), [train, test], "gap", margin=margin
    )


def accuracy_equivalence(
    ours: Evaluation, theirs: Evaluation, *, margin: float
) -> Equivalence:
    """Tests whether the accuracies of two models differ by less than asked.

    As `equivalence`, on one data set, with D = mean(d) and n - 1 degrees of
    freedom.

    Args:
      ours: evaluation of the first model.
      theirs: of the second, on the same examples in the same order.
      margin: positive, in points.

    Raises:
      ConfigError: the margin is not positive.
      DataError: the numbers of examples differ, or there is only one.
    """
    require_pairs((ours,), (theirs,))
    sample = _differences(ours, theirs)
    return _tested(sample.mean(), [sample], "accuracy", margin=margin)


def _differences(ours: Evaluation, theirs: Evaluation) -> np.ndarray:
    return 100.0 * ours.correct - 100.0 * theirs.correct


def _tested(
    difference: float, samples: list[np.ndarray], what: str, *, margin: float
) -> Equivalence:
    """Tests a sum or difference of the means of independent samples."""
    require_margin(margin)
    if min(map(len, samples)) < 2:
        raise errors.DataError(
            f"a test of equivalence in {what} needs at least two examples of "
            "each set: use more (dataset.num_train, dataset.num_test)."
        )
    difference = float(difference)
    variances = [sample.var(ddof=1) / len(sample) for sample in samples]
    error = math.sqrt(sum(variances))
    if error == 0.0:
        p_lower, p_upper = (
            0.0 if inside > 0.0 else 1.0
            for inside in (margin + difference, margin - difference)
        )
        half = 0.0
    else:
        freedom = sum(variances) ** 2 / sum(
            variance**2 / (len(sample) - 1)
            for variance, sample in zip(variances, samples, strict=True)
        )
        student = scipy.stats.t(freedom)
        p_lower = float(student.sf((difference + margin) / error))
        p_upper = float(student.cdf((difference - margin) / error))
        half = error * float(student.isf(LEVEL))
    p_value = max(p_lower, p_upper)
    return Equivalence(
        margin=margin,
        p_lower=p_lower,
        p_upper=p_upper,
        p_value=p_value,
        low=difference - half,
        high=difference + half,
        equivalent=p_value < LEVEL,
    )


def mcnemar(ours: Evaluation, theirs: Evaluation) -> McNemar:
    """Tests whether two models are right equally often on one data set.

    Only the examples that one model gets right and the other wrong tell; if
    the models are equally good, each falls to either side with probability
    1/2 (two-sided binomial test).

    Source: McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12 (1947).

    Args:
      ours: evaluation of the first model.
      theirs: of the second, on the same examples in the same order.

    Raises:
      DataError: the numbers of examples differ.
    """
    require_pairs((ours,), (theirs,))
    only_ours = int((ours.correct & ~theirs.correct).sum())
    only_theirs = int((theirs.correct & ~ours.correct).sum())
    discordant = only_ours + only_theirs
    p_value = 1.0
    if discordant:
        p_value = float(scipy.stats.binomtest(only_ours, discordant).pvalue)
    return McNemar(only_ours, only_theirs, p_value)


def verdict(
    gap: Equivalence, difference: Interval, accuracies: Sequence[Equivalence]
) -> str:
    """Returns whether two models generalize alike, in a word of `VERDICTS`.

    A model that guesses has no gap: gaps alone would call it the same as one
    that generalizes well. So the accuracies must be the same, too.

    Args:
      gap: test of the two accuracy gaps.
      difference: of the two gaps, with its 95 % paired bootstrap interval.
      accuracies: tests of the accuracies on training and test set.

    Returns:
      "same" if gaps and accuracies are equivalent at 5 %; "different" if the
      95 % interval of the difference of the gaps lies outside of the margin,
      or the 90 % interval of a difference in accuracy does; else "cannot
      tell": more examples would decide.
    """
    same, different, cannot_tell = VERDICTS
    if all(tested.equivalent for tested in (gap, *accuracies)):
        return same
    ends = [(difference.low, difference.high)]
    ends += [(tested.low, tested.high) for tested in accuracies]
    if any(low > gap.margin or high < -gap.margin for low, high in ends):
        return different
    return cannot_tell


def require_margin(margin: float) -> None:
    """Raises a ConfigError unless the margin is positive and finite."""
    if not (errors.is_finite(margin) and margin > 0.0):
        raise errors.ConfigError(
            f"margin is {margin!r}: set it to the largest difference of two "
            "gaps that counts as none, in points above 0, such as 0.5."
        )
