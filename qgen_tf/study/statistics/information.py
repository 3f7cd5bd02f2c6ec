"""Conditional mutual information of a measure and the gap."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from qgen_tf.study.statistics.neighbours import condition_codes, require_columns

MOST_CONDITIONS = 2
MOST_MODELS = 1000


@dataclasses.dataclass(frozen=True)
class Information:
    """What a measure tells of the order of gaps, beyond hyper-parameters.

    Attributes:
      value: K, the smallest normalized information, in [0, 1]; NaN if the
        hyper-parameters leave nothing to tell.
      conditions: the hyper-parameters S at which it is reached.
      by_conditions: of each S.
    """

    value: float
    conditions: tuple[str, ...]
    by_conditions: dict[tuple[str, ...], float]


def conditional_information(
    records: pd.DataFrame,
    measure: str,
    gap: str,
    axes: Sequence[str],
    *,
    most_conditions: int = MOST_CONDITIONS,
    most_models: int = MOST_MODELS,
    seed: int = 0,
) -> Information:
    """Returns the conditional mutual information of Jiang et al. 2020.

    Over ordered pairs (a, b) of different models, V_mu = sign(m_a - m_b),
    V_g = sign(g_a - g_b), and U_S are the values that the hyper-parameters in
    S have in both models. Then (arXiv 1912.02178, section 2.2.3)

        I(V_mu, V_g | U_S) = sum over u of p(u) sum over V_mu, V_g of
            p(V_mu, V_g | u) log(p(V_mu, V_g | u) / (p(V_mu | u) p(V_g | u)))
        H(V_g | U_S) = -sum over u of p(u) sum over V_g of
            p(V_g | u) log p(V_g | u)
        K = min over |S| <= 2 of I(V_mu, V_g | U_S) / H(V_g | U_S)

    with frequencies for probabilities. 0: whatever the measure says of the
    gap, a few hyper-parameters say, too. 1: it orders as the gap does, or all
    the other way round. Pairs of equal gaps are left out, since they have no
    order; a tie of the measure is a third value of V_mu. An S of which U_S
    tells the order of all gaps leaves nothing to explain and is left out.

    Frequencies of few pairs exaggerate: a setting u with a pair and its
    mirror image has an information of log 2, whatever the measure is. So a
    hyper-parameter should have few values.

    Args:
      records: a row for each model.
      measure: its column.
      gap: its column.
      axes: columns of the hyper-parameters.
      most_conditions: largest size of S.
      most_models: if there are more, so many are drawn: pairs are many.
      seed: of the drawing.

    Raises:
      DataError: a column is missing.
    """
    require_columns(records, [measure, gap, *axes])
    if len(records) > most_models:
        records = records.sample(most_models, random_state=seed)
    first, second = np.nonzero(~np.eye(len(records), dtype=bool))
    order = _sign(records[gap].to_numpy(np.float64), first, second)
    kept = order != 1
    first, second, order = first[kept], second[kept], order[kept]
    told = _sign(records[measure].to_numpy(np.float64), first, second)
    found = {}
    for size in range(most_conditions + 1):
        for chosen in itertools.combinations(axes, size):
            codes = condition_codes(records, chosen)
            settings = codes[first] * (codes.max(initial=0) + 1) + codes[second]
            value = _normalized(told, order, settings)
            if not math.isnan(value):
                found[chosen] = value
    if not found:
        return Information(math.nan, (), {})
    least = min(found, key=lambda chosen: found[chosen])
    return Information(found[least], least, found)


def _sign(
    values: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Returns 0, 1 or 2 where the first is smaller, equal or larger."""
    return np.sign(values[first] - values[second]).astype(np.int64) + 1


def _normalized(
    told: np.ndarray, order: np.ndarray, settings: np.ndarray
) -> float:
    """Returns I(told, order | settings) / H(order | settings), or NaN."""
    # H(order | U) = H(order, U) - H(U)
    left = _entropy(settings * 3 + order) - _entropy(settings)
    if left < 1e-12:
        return math.nan
    known = settings * 3 + told
    left_when_told = _entropy(known * 3 + order) - _entropy(known)
    return float(np.clip(1.0 - left_when_told / left, 0.0, 1.0))


def _entropy(codes: np.ndarray) -> float:
    """Returns the entropy of the frequencies of equal numbers, in nats."""
    counts = np.bincount(codes)
    shares = counts[counts > 0] / max(1, len(codes))
    return float(-(shares * np.log(shares)).sum())
