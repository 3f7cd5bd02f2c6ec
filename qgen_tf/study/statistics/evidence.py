"""What a test finds for a claim and against it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

from qgen_tf.study.statistics import kendall
from qgen_tf.study.statistics.paired import MissingError

POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Evidence:
    """An effect, and whether it lies where a claim says that it does.

    Attributes:
      effect: estimate.
      unit: of the effect.
      low: lower end of its interval.
      high: upper end.
      standard_error: of the effect, over clusters.
      claimed: the open interval in which the claim has the effect; infinite
        ends stand for none.
      p_for: p-value against an effect outside of it: small if the claim holds.
      p_against: against an effect inside: small if the claim fails.
      num_pairs: pairs of models that were compared.
      num_clusters: independent clusters: float models with their twins.
      test: its name.
    """

    effect: float
    unit: str
    low: float
    high: float
    standard_error: float
    claimed: tuple[float, float]
    p_for: float
    p_against: float
    num_pairs: int
    num_clusters: int
    test: str

    @property
    def p_value(self) -> float:
        """Twice the smaller of both, at most 1: either might have come out."""
        return min(1.0, 2.0 * min(self.p_for, self.p_against))

    def clusters_needed(self, level: float) -> int | None:
        """Returns how many clusters would decide with a power of 80 %.

        With N clusters, standard error s, and d the distance of the effect
        from the nearest of the k ends of the claimed interval,

            n = N ((z_(1 - level/2) + z_(1 - 0.2/k)) s / d)^2
                + z_(1 - level/2)^2 / 2

        were this effect and this spread the true ones; the second term is for
        Student's t in place of the normal distribution. Where there is no
        spread, n of the sign test: 2^(1 - n) <= level. None if d is 0.

        Args:
          level: to be met by the p-value, two-sided.
        """
        ends = [end for end in self.claimed if math.isfinite(end)]
        distance = min(abs(self.effect - end) for end in ends)
        if distance == 0.0:
            return None
        if self.standard_error == 0.0:
            return math.ceil(1.0 - math.log2(level))
        z = scipy.stats.norm.isf(level / 2.0)
        reach = z + scipy.stats.norm.isf((1.0 - POWER) / len(ends))
        spread = self.num_clusters * self.standard_error**2
        return math.ceil(spread * (reach / distance) ** 2 + z**2 / 2.0)


def of_means(
    samples: Sequence[np.ndarray],
    claimed: tuple[float, float],
    *,
    unit: str,
    num_pairs: int,
    confidence: float,
) -> Evidence:
    """Tests the mean of one number for each cluster, or of two such samples.

    The effect is m = mean of the sample, or the difference of the means, the
    first minus the second; s^2 = sum of var_i / n_i, and the degrees of
    freedom are n - 1, or Welch's. With claimed = (a, b),

        p_for     = max(P(t > (m - a) / s), P(t > (b - m) / s))
        p_against = min(P(t > (a - m) / s), P(t > (m - b) / s))

    So (0, inf) is a one-sided t test, (-margin, margin) the two one-sided
    tests of equivalence (Schuirmann 1987), (-inf, margin) one of
    non-inferiority. If all clusters have the same number, their spread is not
    known; then P is that of a sign test, 2^-n.

    Args:
      samples: one or two, [clusters] each.
      claimed: where the claim has the effect.
      unit: of the numbers.
      num_pairs: pairs of models behind them.
      confidence: of the interval, which is Student's.

    Raises:
      MissingError: a sample has less than two clusters.
    """
    sizes = [len(sample) for sample in samples]
    _require_clusters(sizes)
    variances = [sample.var(ddof=1) / len(sample) for sample in samples]
    error = math.sqrt(sum(variances))
    # equal numbers have equal means only up to rounding
    if error <= 1e-12 * max(np.abs(sample).max() for sample in samples):
        error = 0.0
    kind = "paired t test" if len(samples) == 1 else "Welch's t test"
    return _tested(
        float(samples[0].mean() - sum(s.mean() for s in samples[1:])),
        error,
        _freedom(variances, sizes) if error else min(sizes) - 1.0,
        sizes,
        claimed,
        unit=unit,
        num_pairs=num_pairs,
        confidence=confidence,
        test=f"{_name(kind, claimed)} over clusters",
    )


def of_order(
    prediction: np.ndarray,
    outcome: np.ndarray,
    clusters: np.ndarray,
    *,
    confidence: float,
    seed: int,
) -> Evidence:
    """Tests whether a prediction orders models as an outcome does.

    The effect is Kendall's tau, claimed above 0. Its standard error s is that
    of the bootstrap of clusters, and tau / s is taken as Student's t with a
    degree of freedom less than there are clusters. Unlike a permutation, this
    leaves open how models of one cluster depend on each other: that gap and
    prediction both follow the bits in two float models out of two says little
    of a third.

    Args:
      prediction: [models].
      outcome: [models].
      clusters: [models], of equal labels for those of one cluster.
      confidence: of the interval, which is Student's.
      seed: of the bootstrap.

    Raises:
      MissingError: there are less than two clusters.
    """
    _require_clusters([len(np.unique(clusters))])
    found = kendall.kendall(prediction, outcome, clusters, seed=seed)
    return _tested(
        found.tau,
        found.standard_error,
        found.num_clusters - 1.0,
        [found.num_clusters],
        (0.0, math.inf),
        unit="Kendall's tau",
        num_pairs=found.num_models * (found.num_models - 1) // 2,
        confidence=confidence,
        test="rank correlation, bootstrap over clusters",
    )


def _tested(
    effect: float,
    error: float,
    freedom: float,
    sizes: Sequence[int],
    claimed: tuple[float, float],
    *,
    unit: str,
    num_pairs: int,
    confidence: float,
    test: str,
) -> Evidence:
    low, high = claimed

    def tail(distance: float) -> float:
        if error:
            return float(scipy.stats.t.sf(distance / error, freedom))
        if distance <= 0.0:
            return 1.0
        return 0.0 if math.isinf(distance) else 2.0 ** -min(sizes)

    half = error * float(scipy.stats.t.isf((1.0 - confidence) / 2.0, freedom))
    return Evidence(
        effect=effect,
        unit=unit,
        low=effect - half,
        high=effect + half,
        standard_error=error,
        claimed=claimed,
        p_for=max(tail(effect - low), tail(high - effect)),
        p_against=min(tail(low - effect), tail(effect - high)),
        num_pairs=num_pairs,
        num_clusters=sum(sizes),
        test=test,
    )


def _require_clusters(sizes: Sequence[int]) -> None:
    if min(sizes) < 2:
        raise MissingError(
            f"{' and '.join(map(str, sizes))} float models with twins that "
            "can be compared are too few: train at least two, better ten."
        )


def _freedom(variances: Sequence[float], sizes: Sequence[int]) -> float:
    return sum(variances) ** 2 / sum(
        variance**2 / (size - 1)
        for variance, size in zip(variances, sizes, strict=True)
    )


def _name(kind: str, claimed: tuple[float, float]) -> str:
    if all(map(math.isfinite, claimed)):
        return f"two one-sided tests, {kind}"
    if any(end not in (0.0, -math.inf, math.inf) for end in claimed):
        return f"{kind} of non-inferiority"
    return kind
