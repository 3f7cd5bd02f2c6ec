"""Kendall's rank correlation of models that come in clusters."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.stats

from qgen_tf import errors

NUM_PERMUTATIONS = 999
NUM_RESAMPLES = 2000

_TOLERANCE = 1e-12  # of equal correlations that were summed in another order
_BLOCK_ELEMENTS = 2**22  # compared at a time: tens of megabytes


@dataclasses.dataclass(frozen=True)
class Kendall:
    """A rank correlation in [-1, 1] and its interval.

    Attributes:
      tau: the correlation.
      low: lower end of the percentile interval of the cluster bootstrap.
      high: upper end.
      standard_error: standard deviation over the bootstrap.
      num_models: number of rows.
      num_clusters: number of clusters.
    """

    tau: float
    low: float
    high: float
    standard_error: float
    num_models: int
    num_clusters: int


@dataclasses.dataclass(frozen=True)
class PermutationTest:
    """P-values of a rank correlation.

    Attributes:
      p_greater: probability of a tau as large or larger, were there no
        association.
      p_less: of one as small or smaller.
      exact: whether every permutation was counted, not a sample of them.
    """

    p_greater: float
    p_less: float
    exact: bool

    @property
    def p_value(self) -> float:
        """Two-sided: twice the smaller of both, at most 1."""
        return min(1.0, 2.0 * min(self.p_greater, self.p_less))


def kendall(
    measure: np.ndarray,
    gap: np.ndarray,
    clusters: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Kendall:
    """Returns how far a measure orders models as their gaps do.

    Over all ordered pairs of the n models,

        tau = sum over i != j of sign(m_i - m_j) sign(g_i - g_j) / (n (n - 1))

    (Jiang et al. 2020, arXiv 1912.02178, section 2.2; ties count 0).

    A float model and its quantized twins share a cluster and are not
    independent. So the bootstrap draws whole clusters: one that is drawn w_c
    times has its pairs counted w_c w_d times, and a model is not compared
    with its own copies.

    Args:
      measure: [models].
      gap: [models].
      clusters: [models], of equal labels for those of one cluster.
      confidence: of the interval.
      seed: of the bootstrap.

    Raises:
      DataError: there are less than two clusters, or a value is not finite.
    """
    measure, gap, codes = _checked(measure, gap, clusters)
    agreements, pairs = pair_sums(measure, gap, codes)
    draws = _bootstrap(agreements, pairs, seed=seed)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return Kendall(
        tau=float(agreements.sum() / pairs.sum()),
        low=float(low),
        high=float(high),
        standard_error=float(draws.std(ddof=1)),
        num_models=len(measure),
        num_clusters=len(pairs),
    )


def permutation_test(
    measure: np.ndarray,
    gap: np.ndarray,
    clusters: np.ndarray,
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> PermutationTest:
    """Tests whether a measure orders models at all as their gaps do.

    The permutations move the gaps of a cluster together to another of the same
    size, and shuffle them within: what no association would leave as likely.
    All are counted if there are no more than asked for; else
    p = (1 + number at least as extreme) / (1 + number drawn).

    Args:
      measure: [models].
      gap: [models].
      clusters: [models], of equal labels for those of one cluster.
      num_permutations: at most so many.
      seed: of the drawing.

    Raises:
      DataError: there are less than two clusters, or a value is not finite.
    """
    measure, gap, codes = _checked(measure, gap, clusters)
    if not np.ptp(measure) or not np.ptp(gap):
        return PermutationTest(1.0, 1.0, True)

    def statistic(values: np.ndarray) -> float:
        # tau-b: a permutation keeps the ties, so it ranks as tau does
        return scipy.stats.kendalltau(
            measure, values, method="asymptotic"
        ).statistic

    permutations, exact = arrangements(codes, limit=num_permutations, seed=seed)
    observed = statistic(gap)
    drawn = np.array([statistic(gap[places]) for places in permutations])
    extra = 0 if exact else 1  # the observed one is among all, else it is added
    greater = (drawn >= observed - _TOLERANCE).sum() + extra
    less = (drawn <= observed + _TOLERANCE).sum() + extra
    count = len(drawn) + extra
    return PermutationTest(float(greater / count), float(less / count), exact)


def _checked(
    measure: np.ndarray, gap: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns both as floats, and a number for each cluster."""
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    measure, gap = (np.asarray(x, np.float64) for x in (measure, gap))
    if len(set(codes)) < 2 or not np.isfinite([measure, gap]).all():
        raise errors.DataError(
            "a rank correlation needs finite numbers of two float models or "
            f"more, each with its twins, not {len(measure)} of "
            f"{len(set(codes))}: train more models, or leave out those that "
            "failed."
        )
    return measure, gap, codes


def pair_sums(
    measure: np.ndarray, gap: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums the agreements of pairs of models by their clusters.

    Args:
      measure: [models].
      gap: [models].
      codes: [models], numbers of the clusters 0, 1, ..., each there.

    Returns:
      Sums of sign(m_i - m_j) sign(g_i - g_j) over the ordered pairs with i in
      one cluster and j in another or the same, and the numbers of these pairs;
      both [clusters, clusters].
    """
    order = np.argsort(codes, kind="stable")
    measure, gap, codes = measure[order], gap[order], codes[order]
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    sums = np.zeros((len(sizes), len(sizes)))
    step = max(1, _BLOCK_ELEMENTS // len(codes))
    for first in range(0, len(codes), step):
        rows = slice(first, first + step)
        signs = np.sign(measure[rows, None] - measure)
        signs *= np.sign(gap[rows, None] - gap)
        by_cluster = np.add.reduceat(signs, starts, axis=1)
        np.add.at(sums, codes[rows], by_cluster)
    return sums, np.outer(sizes, sizes) - np.diag(sizes)


def arrangements(
    codes: np.ndarray, *, limit: int, seed: int
) -> tuple[Iterator[np.ndarray], bool]:
    """Returns the permutations of models that respect their clusters.

    Clusters of one size change places, and models change places within their
    cluster: that makes prod over sizes s of k_s! (s!)^k_s, k_s the number of
    clusters of s models.

    Args:
      codes: [models], numbers of the clusters.
      limit: if there are more, so many are drawn.
      seed: of the drawing.

    Returns:
      The permutations, [models] each, and whether these are all of them.
    """
    blocks = _blocks(codes)
    count = math.prod(
        math.factorial(len(block))
        * math.factorial(block.shape[1]) ** len(block)
        for block in blocks
    )
    if count <= limit:
        return _every(blocks, len(codes)), True
    return _drawn(blocks, len(codes), limit, np.random.default_rng(seed)), False


def _blocks(codes: np.ndarray) -> list[np.ndarray]:
    """Returns places of models, [clusters of a size, size] for each size."""
    members: dict[int, list[np.ndarray]] = {}
    for code in np.unique(codes):
        places = np.flatnonzero(codes == code)
        members.setdefault(len(places), []).append(places)
    return [np.array(places) for places in members.values()]


def _every(blocks: list[np.ndarray], size: int) -> Iterator[np.ndarray]:
    for chosen in itertools.product(*map(_rearranged, blocks)):
        yield _placed(blocks, chosen, size)


def _rearranged(block: np.ndarray) -> list[np.ndarray]:
    """Returns a block with its rows, and places within them, in any order."""
    number, size = block.shape
    within = list(itertools.permutations(range(size)))
    return [
        np.take_along_axis(block[[*rows]], np.array(columns), axis=1)
        for rows in itertools.permutations(range(number))
        for columns in itertools.product(within, repeat=number)
    ]


def _drawn(
    blocks: list[np.ndarray],
    size: int,
    count: int,
    generator: np.random.Generator,
) -> Iterator[np.ndarray]:
    for _ in range(count):
        chosen = [
            generator.permuted(block[generator.permutation(len(block))], axis=1)
            for block in blocks
        ]
        yield _placed(blocks, chosen, size)


def _placed(
    blocks: Sequence[np.ndarray], chosen: Sequence[np.ndarray], size: int
) -> np.ndarray:
    """Returns the permutation that brings what was chosen to the blocks."""
    placed = np.empty(size, np.int64)
    for block, sources in zip(blocks, chosen, strict=True):
        placed[block.reshape(-1)] = sources.reshape(-1)
    return placed


def _bootstrap(
    agreements: np.ndarray, pairs: np.ndarray, *, seed: int
) -> np.ndarray:
    """Returns tau of clusters that are drawn with replacement."""
    count = len(agreements)
    weights = (
        np.random.default_rng(seed)
        .multinomial(count, np.full(count, 1.0 / count), size=NUM_RESAMPLES)
        .astype(np.float64)
    )
    totals = ((weights @ pairs) * weights).sum(axis=1)
    sums = ((weights @ agreements) * weights).sum(axis=1)
    # a lone model that was drawn every time has no pair
    return sums[totals > 0] / totals[totals > 0]
