"""Verdicts on claims, corrected for their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from qgen_tf.study.statistics.evidence import Evidence
from qgen_tf.study.statistics.multiplicity import holm
from qgen_tf.study.statistics.paired import MissingError

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclasses.dataclass(frozen=True)
class Part:
    """What one test says of a claim.

    Attributes:
      name: what of the claim it tests; "" if it is all of it.
      verdict: "supported", "contradicted" or "undecided".
      evidence: what was found; None if nothing can be.
      adjusted_p_value: after Holm's correction; None without evidence.
      clusters_needed: float models, each with its twins, that a verdict needs
        with a power of 80 % if the effect is as observed; None if unknown.
      reason: why it is undecided, "" if it is not.
    """

    name: str
    verdict: str
    evidence: Evidence | None
    adjusted_p_value: float | None
    clusters_needed: int | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the records say of a claim.

    Attributes:
      claim: number.
      sentence: what it says.
      verdict: "supported" if every part is, "contradicted" if a part is, else
        "undecided".
      reason: of the verdict, in a sentence.
      parts: the tests.
      decisive: the part that decides: of those with the same verdict as the
        claim, the most certain if it is contradicted, else the least.
    """

    claim: int
    sentence: str
    verdict: str
    reason: str
    parts: tuple[Part, ...]
    decisive: Part


def weigh(
    claim: int,
    sentence: str,
    tests: Mapping[str, Callable[[], Evidence]],
    *,
    confidence: float,
) -> Verdict:
    """Returns the verdict on a claim, corrected for the number of its tests.

    Args:
      claim: number.
      sentence: what it says.
      tests: name of each part to its test, which may raise a MissingError.
      confidence: 1 - confidence is the probability of any false verdict.
    """
    parts = tuple(_untested(name, test) for name, test in tests.items())
    verdict = Verdict(claim, sentence, UNDECIDED, "", parts, parts[0])
    return corrected([verdict], confidence=confidence)[0]


def _untested(name: str, test: Callable[[], Evidence]) -> Part:
    evidence, reason = None, ""
    try:
        evidence = test()
    except MissingError as error:
        reason = str(error)
    return Part(name, UNDECIDED, evidence, None, None, reason)


def corrected(
    verdicts: Sequence[Verdict], *, confidence: float
) -> list[Verdict]:
    """Decides the verdicts anew, with Holm's correction over all their tests.

    A part is supported if its corrected p-value is below 1 - confidence and
    the evidence is for the claim; contradicted if it is against.

    Args:
      verdicts: any.
      confidence: 1 - confidence is the probability of any false verdict.
    """
    level = 1.0 - confidence
    p_values = [
        part.evidence.p_value
        for verdict in verdicts
        for part in verdict.parts
        if part.evidence
    ]
    adjusted = iter(holm(np.array(p_values)))
    decided = []
    for verdict in verdicts:
        parts = tuple(
            _decided(part, adjusted, level, len(p_values))
            for part in verdict.parts
        )
        decided.append(_combined(verdict, parts))
    return decided


def _decided(part: Part, adjusted, level: float, num_tests: int) -> Part:
    if part.evidence is None:
        return part
    evidence, p_value = part.evidence, float(next(adjusted))
    needed = evidence.clusters_needed(level / num_tests)
    verdict, reason = UNDECIDED, ""
    if p_value < level:
        is_for = evidence.p_for < evidence.p_against
        verdict = SUPPORTED if is_for else CONTRADICTED
    else:
        reason = f"p = {p_value:.2g} after correction for {num_tests} tests"
        if needed is not None:
            reason += (
                f"; were the effect as observed, {needed} float models with "
                f"their twins would decide, here are {evidence.num_clusters}"
            )
    return dataclasses.replace(
        part,
        verdict=verdict,
        adjusted_p_value=p_value,
        clusters_needed=needed,
        reason=reason,
    )


def _combined(verdict: Verdict, parts: tuple[Part, ...]) -> Verdict:
    found = [part.verdict for part in parts]
    combined = UNDECIDED
    if CONTRADICTED in found:
        combined = CONTRADICTED
    elif set(found) == {SUPPORTED}:
        combined = SUPPORTED
    alike = [part for part in parts if part.verdict == combined]
    tested = [part for part in alike if part.evidence] or alike
    choose = min if combined == CONTRADICTED else max
    decisive = choose(tested, key=lambda part: part.adjusted_p_value or 0.0)
    return dataclasses.replace(
        verdict,
        verdict=combined,
        reason=_reason(parts, decisive),
        parts=parts,
        decisive=decisive,
    )


def _reason(parts: tuple[Part, ...], decisive: Part) -> str:
    if len(parts) == 1:
        return decisive.reason
    counts = {
        verdict: [part for part in parts if part.verdict == verdict]
        for verdict in (SUPPORTED, CONTRADICTED, UNDECIDED)
    }
    lines = [
        f"{len(found)} of {len(parts)} {verdict}"
        + (f" ({', '.join(part.name for part in found)})")
        for verdict, found in counts.items()
        if found
    ]
    missing = [part for part in parts if part.evidence is None]
    lines += [f"{part.name}: {part.reason}" for part in missing]
    return "; ".join(lines)


def frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Returns a row for each verdict, with the numbers of what decided it."""
    rows = []
    for verdict in verdicts:
        row = {
            "claim": verdict.claim,
            "sentence": verdict.sentence,
            "verdict": verdict.verdict,
            **_numbers(verdict.decisive),
        }
        rows.append({**row, "reason": verdict.reason})
    return _table(rows)


def parts_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Returns a row for each test of each verdict."""
    rows = []
    for verdict in verdicts:
        for part in verdict.parts:
            row = {
                "claim": verdict.claim,
                "verdict": part.verdict,
                **_numbers(part),
            }
            rows.append({**row, "reason": part.reason})
    return _table(rows)


def _numbers(part: Part) -> dict[str, object]:
    numbers: dict[str, object] = {"part": part.name}
    for name in ("effect", "unit", "low", "high", "p_value"):
        numbers[name] = getattr(part.evidence, name, None)
    numbers["adjusted_p_value"] = part.adjusted_p_value
    for name in ("num_pairs", "num_clusters"):
        numbers[name] = getattr(part.evidence, name, None)
    numbers["clusters_needed"] = part.clusters_needed
    numbers["test"] = getattr(part.evidence, "test", None)
    return numbers


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    floats = ("effect", "low", "high", "p_value", "adjusted_p_value")
    counts = ("num_pairs", "num_clusters", "clusters_needed")
    return pd.DataFrame(rows).astype(
        {name: "float64" for name in floats}
        | {name: "Int64" for name in counts}
    )
