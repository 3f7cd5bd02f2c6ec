"""How tests become verdicts."""

import dataclasses
import functools
import json
import math

import pytest

from qgen_tf.study.statistics import verdicts
from qgen_tf.study.statistics.evidence import Evidence
from qgen_tf.study.statistics.paired import MissingError
from qgen_tf.study.statistics.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED

_EVIDENCE = Evidence(
    effect=1.0,
    unit="points",
    low=0.5,
    high=1.5,
    standard_error=0.25,
    claimed=(0.0, math.inf),
    p_for=0.001,
    p_against=0.999,
    num_pairs=30,
    num_clusters=10,
    test="paired t test over clusters",
)


def _for(p, **changes):
    return dataclasses.replace(_EVIDENCE, p_for=p, p_against=1.0 - p, **changes)


def _against(p):
    return dataclasses.replace(_EVIDENCE, p_for=1.0 - p, p_against=p)


def _missing():
    raise MissingError("the records have no column 'gap': measure it.")


def _weigh(claim=1, confidence=0.95, **found):
    tests = {
        name: functools.partial(lambda kept: kept, value)
        if isinstance(value, Evidence)
        else value
        for name, value in found.items()
    }
    return verdicts.weigh(claim, "It is so.", tests, confidence=confidence)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (_for(0.024), SUPPORTED),
        (_against(0.024), CONTRADICTED),
        (_for(0.026), UNDECIDED),
        (_against(0.026), UNDECIDED),
        (_for(0.5), UNDECIDED),
        (_missing, UNDECIDED),
    ],
)
def test_one_test_decides_at_the_level(found, verdict):
    weighed = _weigh(part=found)
    assert weighed.verdict == weighed.parts[0].verdict == verdict
    assert weighed.decisive is weighed.parts[0]
    assert (weighed.reason == "") == (verdict != UNDECIDED)


def test_confidence_sets_the_level():
    assert _weigh(part=_for(0.03)).verdict == UNDECIDED
    assert _weigh(part=_for(0.03), confidence=0.9).verdict == SUPPORTED


@pytest.mark.parametrize(
    ("found", "verdict", "decisive"),
    [
        ({"a": _for(1e-4), "b": _for(1e-3)}, SUPPORTED, "b"),
        ({"a": _for(1e-4), "b": _against(1e-4)}, CONTRADICTED, "b"),
        ({"a": _against(1e-3), "b": _against(1e-4)}, CONTRADICTED, "b"),
        ({"a": _for(1e-4), "b": _for(0.2)}, UNDECIDED, "b"),
        ({"a": _for(1e-4), "b": _missing}, UNDECIDED, "b"),
        ({"a": _for(0.2), "b": _missing}, UNDECIDED, "a"),
        ({"a": _against(1e-4), "b": _missing}, CONTRADICTED, "a"),
    ],
)
def test_parts_make_a_verdict(found, verdict, decisive):
    weighed = _weigh(**found)
    assert weighed.verdict == verdict
    assert weighed.decisive.name == decisive
    assert [part.name for part in weighed.parts] == ["a", "b"]
    if _missing in found.values():
        assert "b: the records have no column 'gap'" in weighed.reason


def test_a_reason_counts_the_parts():
    weighed = _weigh(a=_for(1e-4), b=_for(1e-4), c=_against(1e-4))
    assert weighed.reason == "2 of 3 supported (a, b); 1 of 3 contradicted (c)"


def test_verdicts_are_corrected_for_all_their_tests():
    first = _weigh(1, a=_for(0.01), b=_missing)
    second = _weigh(2, a=_for(0.001), b=_against(0.02))
    assert first.parts[0].verdict == SUPPORTED
    one, two = verdicts.corrected([first, second], confidence=0.95)
    # two-sided 0.02, 0.002 and 0.04: Holm's 2 * 0.02, 3 * 0.002 and 0.04
    adjusted = [part.adjusted_p_value for part in (*one.parts, *two.parts)]
    assert adjusted == [
        pytest.approx(0.04),
        None,
        pytest.approx(0.006),
        pytest.approx(0.04),
    ]
    assert (one.verdict, two.verdict) == (UNDECIDED, CONTRADICTED)
    again = verdicts.corrected([one, two], confidence=0.95)
    assert again == [one, two]
    strict = verdicts.corrected([one, two], confidence=0.97)
    assert [part.verdict for part in strict[1].parts] == [SUPPORTED, UNDECIDED]


def test_the_number_that_is_needed_is_that_of_the_corrected_level():
    alone = _weigh(a=_for(0.2)).parts[0]
    assert alone.clusters_needed == _EVIDENCE.clusters_needed(0.05)
    among = _weigh(a=_for(0.2), b=_for(0.2)).parts[0]
    assert among.clusters_needed == _EVIDENCE.clusters_needed(0.025)
    assert among.clusters_needed > alone.clusters_needed
    assert f"{alone.clusters_needed} float models" in alone.reason
    at_the_limit = _weigh(a=_for(0.5, effect=0.0)).parts[0]
    assert at_the_limit.clusters_needed is None
    assert at_the_limit.reason == "p = 1 after correction for 1 tests"


def test_frames_have_what_was_found():
    found = [_weigh(1, a=_for(1e-4), b=_missing), _weigh(2, a=_for(1e-4))]
    table = verdicts.frame(found)
    assert table["claim"].tolist() == [1, 2]
    assert table["verdict"].tolist() == [UNDECIDED, SUPPORTED]
    assert table["reason"].tolist() == [found[0].reason, ""]
    row = table.iloc[1]
    for name in ("effect", "unit", "low", "high", "num_pairs", "test"):
        assert row[name] == getattr(_EVIDENCE, name)
    assert row["p_value"] == row["adjusted_p_value"] == pytest.approx(2e-4)
    assert row["clusters_needed"] == found[1].parts[0].clusters_needed
    assert math.isnan(table["effect"][0])
    parts = verdicts.parts_frame(found)
    assert parts["claim"].tolist() == [1, 1, 2]
    assert parts["part"].tolist() == ["a", "b", "a"]
    assert parts["verdict"].tolist() == [SUPPORTED, UNDECIDED, SUPPORTED]
    assert parts["reason"][1].startswith("the records have no column")


def test_nothing_found_is_no_error():
    (weighed,) = verdicts.corrected([_weigh(a=_missing)], confidence=0.95)
    assert weighed.verdict == UNDECIDED
    assert "no column 'gap'" in weighed.reason
    assert verdicts.frame([weighed])["effect"].isna().all()


def test_a_verdict_is_plain_data():
    content = dataclasses.asdict(_weigh(a=_for(1e-4)))
    assert json.loads(json.dumps(content))["verdict"] == SUPPORTED
