"""Which bits to choose: as accurate as can be, at a gap no larger than float's.

Everything is of the deployed files, and paired: a quantized model is compared
with the float model that it started from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from qgen_tf import errors
from qgen_tf.study import guidance_text
from qgen_tf.study.guidance_text import CANNOT_TELL, LARGER, QUALIFIES
from qgen_tf.study.statistics import evidence, paired
from qgen_tf.study.statistics.claim_tests import CONFIDENCE, MARGIN, Settings
from qgen_tf.study.statistics.evidence import Evidence
from qgen_tf.study.statistics.multiplicity import holm
from qgen_tf.study.statistics.paired import CLUSTER, MissingError

_ACCURACY, _GAP = "file_test_accuracy", "file_gap"
# shares by which sizes and latencies may differ and still count as the same
_SAME = {"kilobytes": 0.01, "latency_ms": 0.05}


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Which bits to choose.

    Attributes:
      choice: the bits, such as "w4a8"; None if the models do not tell.
      text: why, in a paragraph.
      table: a row for float and each choice of bits, empty where no file can
        be compared: `bits`; `models`, the number of float models with such a
        twin; `accuracy`, mean of the files on the test set, in points;
        `accuracy_difference`, mean of file minus file of the float twin, in
        points, with `_low` and `_high`; `gap_difference`, the same of the
        accuracy gap; `p_value` of the test that the gap is no larger than
        float's by the margin, corrected for the number of bits; `verdict`,
        what it says: "no larger", "larger" or "cannot tell"; `models_needed`,
        float models that would tell with a power of 80 %, were the difference
        as found; `kilobytes` and `latency_ms`, means of the files.
    """

    choice: str | None
    text: str
    table: pd.DataFrame

    @property
    def readable(self) -> pd.DataFrame:
        """The table with headings and rounded numbers, as text."""
        return guidance_text.readable(self.table)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """Models of the same bits; differences are those of the files to float.

    Attributes:
      bits: such as "w4a8".
      pairs: rows of the models, with what their float twins have.
      accuracy: difference in accuracy on the test set.
      gap: difference in the gap, tested against the margin.
      p_value: of that test, corrected.
      verdict: of that test.
      needed: float models that a verdict needs; None if unknown.
    """

    bits: str
    pairs: pd.DataFrame
    accuracy: Evidence
    gap: Evidence
    p_value: float
    verdict: str
    needed: int | None


def recommend(
    records: pd.DataFrame,
    *,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Recommendation:
    """Returns which bits to choose for deployment.

    Bits qualify if the gap of their files is no larger than that of the float
    twins' files plus the margin: a one-sided t test over float models, with
    Holm's correction for the number of bits. Of those that qualify, the best
    is the one whose files gain most over those of the float twins, or lose
    least, in mean accuracy on the test set. Those that cannot be told from it,
    because the paired interval of the difference includes 0, tie with it: the
    smallest file is chosen, of files of the same size (to 1 %) the fastest, of
    these (to 5 %) the most accurate.

    With one float model the spread from model to model is not known. Tests are
    then of that of examples alone: each accuracy is binomial, and those of
    twins are taken as independent, which is cautious.

    Args:
      records: a row for each model.
      margin: by how much a larger gap still counts as no larger, in points.
      confidence: of intervals and tests.

    Raises:
      ConfigError: margin or confidence is out of range.
      DataError: these are no records.
    """
    if not isinstance(records, pd.DataFrame):
        raise errors.DataError(
            f"the records are {type(records).__name__}: pass what "
            "qgen_tf.study.load returns."
        )
    if not errors.is_finite(confidence):
        raise errors.ConfigError(
            f"confidence is {confidence!r}: write a number, such as 0.95."
        )
    settings = Settings(margin, confidence)
    try:
        candidates = _candidates(records, settings)
    except MissingError as error:
        return Recommendation(
            None, f"No bits can be recommended: {error}", pd.DataFrame()
        )
    table = _table(candidates, records)
    qualified = [c for c in candidates if c.verdict == QUALIFIES]
    if not qualified:
        text = guidance_text.undecided(table, margin)
        return Recommendation(None, text, table)
    best = max(qualified, key=lambda c: c.accuracy.effect)
    tied = [c for c in qualified if c is best or _is_tied(best, c, settings)]
    chosen = _cheapest(tied)
    text = guidance_text.decided(
        table,
        chosen.bits,
        [c.bits for c in tied if c is not chosen],
        margin=margin,
        confidence=confidence,
    )
    return Recommendation(chosen.bits, text, table)


def _candidates(records: pd.DataFrame, settings: Settings) -> list[_Candidate]:
    """Returns what there is of each choice of bits, most bits first."""
    paired.require(records, ["bits"])
    pairs = paired.twins(records, [_ACCURACY, _GAP]).sort_values(
        ["weight_bits", "activation_bits"], ascending=False, kind="stable"
    )
    groups = [group for _, group in pairs.groupby("bits", sort=False)]
    gaps = [_change(group, _GAP, settings) for group in groups]
    p_for = holm(np.array([gap.p_for for gap in gaps]))
    p_against = holm(np.array([gap.p_against for gap in gaps]))
    level = 1.0 - settings.confidence
    found = []
    for index, (group, gap) in enumerate(zip(groups, gaps, strict=True)):
        verdict, needed = CANNOT_TELL, None
        if p_for[index] < level:
            verdict = QUALIFIES
        elif p_against[index] < level:
            verdict = LARGER
        else:  # what a two-sided test of twice the level asks for
            needed = gap.clusters_needed(2.0 * level / len(groups))
        found.append(
            _Candidate(
                bits=group["bits"].iloc[0],
                pairs=group,
                accuracy=_change(group, _ACCURACY, settings),
                gap=gap,
                p_value=float(p_for[index]),
                verdict=verdict,
                needed=needed,
            )
        )
    return found


def _change(pairs: pd.DataFrame, column: str, settings: Settings) -> Evidence:
    """Tests the mean change from the float twin against the margin."""
    changes = pairs[column] - pairs[f"float_{column}"]
    by_cluster = changes.groupby(pairs[CLUSTER]).mean()
    return _tested(by_cluster, pairs, column, settings)


def _tested(
    changes: pd.Series, pairs: pd.DataFrame, column: str, settings: Settings
) -> Evidence:
    """Tests a mean over float models; over examples if there is only one.

    Args:
      changes: a number for each float model.
      pairs: the models behind them.
      column: of which the change is.
      settings: margin and confidence.
    """
    claimed = (-math.inf, settings.margin)
    if len(changes) > 1:
        return evidence.of_means(
            [changes.to_numpy()],
            claimed,
            unit="points",
            num_pairs=len(pairs),
            confidence=settings.confidence,
        )
    effect, error = float(changes.iloc[0]), _sampling_error(pairs, column)
    normal = scipy.stats.norm(scale=error)
    half = float(normal.isf((1.0 - settings.confidence) / 2.0))
    return Evidence(
        effect=effect,
        unit="points",
        low=effect - half,
        high=effect + half,
        standard_error=error,
        claimed=claimed,
        p_for=float(normal.sf(settings.margin - effect)),
        p_against=float(normal.sf(effect - settings.margin)),
        num_pairs=len(pairs),
        num_clusters=1,
        test="binomial accuracies, over examples",
    )


def _sampling_error(pairs: pd.DataFrame, column: str) -> float:
    """Returns the standard error of a change, over examples, in points.

    Of k right out of n the variance is that of (k + 2) / (n + 4), which is not
    0 where all are right (Agresti and Coull 1998).
    """
    paired.require(pairs, ["num_train", "num_test"])
    variance = 0.0
    for prefix in ("", "float_"):
        test = pairs[f"{prefix}{_ACCURACY}"].iloc[0]
        accuracies = {"num_test": test}
        if column == _GAP:
            accuracies["num_train"] = test + pairs[f"{prefix}{_GAP}"].iloc[0]
        for size, accuracy in accuracies.items():
            count = pairs[size].iloc[0]
            share = (accuracy / 100.0 * count + 2.0) / (count + 4.0)
            share = min(max(share, 0.0), 1.0)  # test and gap may disagree
            variance += 100.0**2 * share * (1.0 - share) / (count + 4.0)
    return math.sqrt(variance)


def _is_tied(best: _Candidate, other: _Candidate, settings: Settings) -> bool:
    """Whether the accuracies cannot be told apart on shared float models."""
    ours, theirs = (
        candidate.pairs.groupby(CLUSTER)[_ACCURACY].mean()
        for candidate in (best, other)
    )
    changes = (ours - theirs).dropna()
    if changes.empty:
        return True
    found = _tested(changes, best.pairs, _ACCURACY, settings)
    return found.low <= 0.0 <= found.high


def _cheapest(tied: Sequence[_Candidate]) -> _Candidate:
    """Returns the smallest file, then the fastest, then the most accurate."""
    for column, slack in _SAME.items():
        means = np.array([_mean(c.pairs, column) for c in tied])
        if np.isfinite(means).any():
            most = (1.0 + slack) * np.nanmin(means)
            tied = [
                c for c, mean in zip(tied, means, strict=True) if mean <= most
            ]
    return max(tied, key=lambda c: c.accuracy.effect)


def _mean(models: pd.DataFrame, column: str) -> float:
    """Returns the mean over float models; NaN if there is no such column."""
    if column not in models:
        return math.nan
    return float(models.groupby(CLUSTER)[column].mean().mean())


def _table(
    candidates: Sequence[_Candidate], records: pd.DataFrame
) -> pd.DataFrame:
    clusters = {name for c in candidates for name in c.pairs[CLUSTER]}
    floats = records[paired.is_float(records) & records[CLUSTER].isin(clusters)]
    rows = [{"bits": "float", "models": len(clusters), **_means(floats)}]
    for candidate in candidates:
        row = {
            "bits": candidate.bits,
            "models": candidate.gap.num_clusters,
            **_means(candidate.pairs),
        }
        for name in ("accuracy", "gap"):
            found = getattr(candidate, name)
            row[f"{name}_difference"] = found.effect
            row[f"{name}_difference_low"] = found.low
            row[f"{name}_difference_high"] = found.high
        row["p_value"] = candidate.p_value
        row["verdict"] = candidate.verdict
        row["models_needed"] = candidate.needed
        rows.append(row)
    return pd.DataFrame(rows, columns=[*rows[-1]]).astype(
        {"models_needed": "Int64"}
    )


def _means(models: pd.DataFrame) -> dict[str, float]:
    return {
        "accuracy": _mean(models, _ACCURACY),
        **{column: _mean(models, column) for column in _SAME},
    }
