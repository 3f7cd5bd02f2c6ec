"""Granulated Kendall's coefficient: one hyper-parameter at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from qgen_tf.study.statistics.neighbours import signs


@dataclasses.dataclass(frozen=True)
class Granulated:
    """How far a measure orders models that differ in one hyper-parameter.

    Attributes:
      axes: hyper-parameter to its psi in [-1, 1]; those without pairs are not
        there.
      mean: Psi, their mean; NaN if there is none.
    """

    axes: dict[str, float]
    mean: float


def granulated(
    measure: np.ndarray, gap: np.ndarray, pairs: pd.DataFrame
) -> Granulated:
    """Returns the granulated Kendall's coefficient of Jiang et al. 2020.

    A measure that only follows one hyper-parameter, say depth, can have a high
    tau. With everything but the hyper-parameter i held fixed,

        psi_i = 1/m_i sum over settings of the others of tau along i
        Psi   = mean over i of psi_i

    m_i being the number of settings (arXiv 1912.02178, equations 4 and 5). tau
    is the mean of sign(m_a - m_b) sign(g_a - g_b) over the pairs of
    `neighbours` of the setting: of the models with each value, and with each
    seed.

    Args:
      measure: [models].
      gap: [models].
      pairs: of `neighbours`.
    """
    agreement = signs(measure, pairs) * signs(gap, pairs)
    taus = pairs.assign(agreement=agreement).groupby(
        ["axis", "others"], sort=False
    )["agreement"]
    psi = taus.mean().groupby("axis", sort=False).mean()
    return Granulated(
        axes={str(axis): float(value) for axis, value in psi.items()},
        mean=float(psi.mean()),
    )
