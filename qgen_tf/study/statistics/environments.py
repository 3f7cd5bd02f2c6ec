"""Sign errors of a measure, and the environment in which it is worst."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from qgen_tf import errors
from qgen_tf.study.statistics.neighbours import signs

LEAST_SAMPLE_SIZE = 12.0
_LEAST_WEIGHT = 0.5


@dataclasses.dataclass(frozen=True)
class SignErrors:
    """How often a measure orders pairs of models wrongly, by environment.

    Attributes:
      mean: over environments, in [0, 1]; NaN if there is none.
      percentile_90: of the environments.
      worst: the largest: a robust measure has a small one.
      worst_environment: where that is, such as "depth: 2 | 4", or "".
      table: a row for each environment: `axis`, `lower`, `upper`, `others`,
        `sign_error`, `sample_size` (effective).
    """

    mean: float
    percentile_90: float
    worst: float
    worst_environment: str
    table: pd.DataFrame


def noise_weight(difference: np.ndarray, num_test: int) -> np.ndarray:
    """Returns how far differences of gaps are to be trusted, in [0, 1/2].

    By Hoeffding's inequality each of two gaps that n test examples give is
    within d / 2 of its expectation with probability at least
    1 - 2 exp(-2 n (d / 2)^2). Both are, and the models are ordered rightly,
    with at least

        w = max(0, 1 - 2 exp(-2 n (|d| / 2)^2))^2

    and a pair counts (w - 1/2)_+ (Dziugaite et al. 2020, arXiv 2010.11924, as
    in their published code).

    Args:
      difference: of the gaps in accuracy, as shares in [-1, 1].
      num_test: n.
    """
    failure = 2.0 * np.exp(-2.0 * num_test * (np.abs(difference) / 2.0) ** 2)
    weight = np.maximum(0.0, 1.0 - failure) ** 2
    return np.maximum(0.0, weight - _LEAST_WEIGHT)


def sign_errors(
    measure: np.ndarray,
    gap: np.ndarray,
    pairs: pd.DataFrame,
    *,
    num_test: int | None,
    pooled: bool = True,
    least_sample_size: float = LEAST_SAMPLE_SIZE,
) -> SignErrors:
    """Returns the sign errors of Dziugaite et al. 2020 by environment.

    An environment e changes one hyper-parameter from one value to another. Its
    sign error is the weighted mean over its pairs of models

        (1 - sign(m_a - m_b) sign(g_a - g_b)) / 2

    0 where the measure orders as the gap does, 1 where it always errs, 1/2 by
    chance (arXiv 2010.11924). Weights are those of
    `noise_weight`: what the test set cannot order does not count. An
    environment whose effective sample size (sum w)^2 / sum w^2 is below the
    least is left out.

    Args:
      measure: [models].
      gap: [models], in accuracy points, train minus test.
      pairs: of `neighbours`.
      num_test: test examples behind each gap; None weighs all pairs alike.
      pooled: whether an environment has all settings of the other
        hyper-parameters, so that its pairs differ in these and in the seed.
        If not, each setting is an environment as in their code, and the pairs
        differ in the seed alone: that needs many seeds.
      least_sample_size: of an environment; theirs is 12.

    Raises:
      ConfigError: the least sample size is not positive.
    """
    if not least_sample_size > 0.0:
        raise errors.ConfigError(
            f"least_sample_size is {least_sample_size}: it must be above 0, "
            "since an environment without pairs has no error."
        )
    weight = np.ones(len(pairs))
    if num_test is not None:
        first, second = (pairs[name].to_numpy() for name in ("first", "second"))
        difference = gap[first] - gap[second]
        weight = noise_weight(difference / 100.0, num_test)
    error = (1.0 - signs(measure, pairs) * signs(gap, pairs)) / 2.0
    keys = ["axis", "lower", "upper", *([] if pooled else ["others"])]
    sums = (
        pairs[keys]
        .assign(weight=weight, square=weight**2, error=weight * error)
        .groupby(keys, sort=False)
        .sum()
    )
    sums = sums[sums["weight"] > 0.0]
    table = pd.DataFrame(
        {
            "sign_error": sums["error"] / sums["weight"],
            "sample_size": sums["weight"] ** 2 / sums["square"],
        }
    ).reset_index()
    large = table["sample_size"] >= least_sample_size - 1e-9
    return _summary(table[large].reset_index(drop=True))


def _summary(table: pd.DataFrame) -> SignErrors:
    found = table["sign_error"]
    if table.empty:
        return SignErrors(np.nan, np.nan, np.nan, "", table)
    worst = table.loc[found.idxmax()]
    return SignErrors(
        mean=float(found.mean()),
        percentile_90=float(np.percentile(found, 90)),
        worst=float(found.max()),
        worst_environment=(
            f"{worst['axis']}: {worst['lower']} | {worst['upper']}"
        ),
        table=table,
    )
