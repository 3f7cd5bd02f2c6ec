"""Measures ranked by how well they order models as their gaps do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from qgen_tf import errors
from qgen_tf.measures import MEASURES
from qgen_tf.study.statistics import kendall, multiplicity, orientation
from qgen_tf.study.statistics.environments import sign_errors
from qgen_tf.study.statistics.granulated import granulated
from qgen_tf.study.statistics.information import conditional_information
from qgen_tf.study.statistics.neighbours import (
    neighbours,
    require_columns,
    varied,
)

FEWEST_MODELS = 4


def ranking(
    records: pd.DataFrame,
    *,
    gap: str = "gap",
    measures: Sequence[str] | None = None,
    axes: Sequence[str] | None = None,
    num_test: int | None = None,
    confidence: float = 0.95,
    num_permutations: int = kendall.NUM_PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns the table of Jiang et al. and of Dziugaite et al., a row each.

    Measures of which a larger value promises a smaller gap are turned round,
    so that 1 is the best for all: `direction` says which.

    Args:
      records: a row for each model, `twin_of` naming its cluster.
      gap: column that is to be ordered, larger meaning worse.
      measures: columns; None takes those of `MEASURES` that are there.
      axes: columns of hyper-parameters; None takes those that vary.
      num_test: test examples behind each gap, if the gap is one in accuracy:
        sign errors are weighed by what they can tell; None weighs all alike.
      confidence: of the intervals of tau.
      num_permutations: of the test of tau.
      seed: of permutations and bootstrap.

    Returns:
      A row for each measure, the best mean psi first, with `measure`,
      `direction` (1, or -1 if turned round), `num_models`, `num_clusters`,
      `tau` with `tau_low`, `tau_high`, `p_value` and `holm_p_value` (corrected
      for the number of measures), `information` (K) with `information_given`,
      `psi_<axis>` for each axis, `psi` their mean, and `sign_error_mean`,
      `sign_error_90` (percentile), `sign_error_worst`, `worst_environment` and
      `num_environments`. NaN stands where too few models differ in one
      hyper-parameter alone; see `granulated`, `conditional_information` and
      `sign_errors` for what the numbers are.

    Raises:
      DataError: a column is missing, or there is no measure with values of at
        least four models in two clusters.
    """
    if measures is None:
        measures = [name for name in MEASURES if name in records]
    axes = varied(records) if axes is None else list(axes)
    require_columns(records, ["twin_of", gap, *measures, *axes])
    pairs = neighbours(records, axes)
    rows = []
    for measure in measures:
        known = np.isfinite(records[[measure, gap]]).all(axis=1).to_numpy()
        if (
            known.sum() < FEWEST_MODELS
            or records["twin_of"][known].nunique() < 2
        ):
            continue
        both = known[pairs["first"]] & known[pairs["second"]]
        row = _orders(
            records[known],
            measure,
            gap,
            axes,
            confidence=confidence,
            num_permutations=num_permutations,
            seed=seed,
        )
        row |= _along_axes(
            records, measure, gap, axes, pairs[both], num_test=num_test
        )
        rows.append(row)
    if not rows:
        raise errors.DataError(
            f"no measure of {list(measures)} was taken of {FEWEST_MODELS} "
            "models or more, of two float models or more: train and measure "
            "more models."
        )
    table = pd.DataFrame(rows)
    table.insert(
        table.columns.get_loc("p_value") + 1,
        "holm_p_value",
        multiplicity.holm(table["p_value"].to_numpy()),
    )
    return table.sort_values(["psi", "tau"], ascending=False, ignore_index=True)


def _orders(
    records: pd.DataFrame,
    measure: str,
    gap: str,
    axes: Sequence[str],
    *,
    confidence: float,
    num_permutations: int,
    seed: int,
) -> dict[str, object]:
    """Returns what a measure tells of all models."""
    sign = orientation.direction(measure)
    models = (
        sign * records[measure].to_numpy(np.float64),
        records[gap].to_numpy(np.float64),
        records["twin_of"].to_numpy(),
    )
    rank = kendall.kendall(*models, confidence=confidence, seed=seed)
    tested = kendall.permutation_test(
        *models, num_permutations=num_permutations, seed=seed
    )
    information = conditional_information(
        records, measure, gap, axes, seed=seed
    )
    return {
        "measure": measure,
        "direction": sign,
        "num_models": rank.num_models,
        "num_clusters": rank.num_clusters,
        "tau": rank.tau,
        "tau_low": rank.low,
        "tau_high": rank.high,
        "p_value": tested.p_value,
        "information": information.value,
        "information_given": ", ".join(information.conditions),
    }


def _along_axes(
    records: pd.DataFrame,
    measure: str,
    gap: str,
    axes: Sequence[str],
    pairs: pd.DataFrame,
    *,
    num_test: int | None,
) -> dict[str, object]:
    """Returns what a measure tells of models that differ in one axis."""
    values = orientation.direction(measure) * records[measure].to_numpy(
        np.float64
    )
    gaps = records[gap].to_numpy(np.float64)
    psi = granulated(values, gaps, pairs)
    wrong = sign_errors(values, gaps, pairs, num_test=num_test)
    return {
        **{f"psi_{axis}": psi.axes.get(axis, np.nan) for axis in axes},
        "psi": psi.mean,
        "sign_error_mean": wrong.mean,
        "sign_error_90": wrong.percentile_90,
        "sign_error_worst": wrong.worst,
        "worst_environment": wrong.worst_environment,
        "num_environments": len(wrong.table),
    }
