"""The table says what was measured, and a stopped run goes on."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks import document, machine, parts
from benchmarks.rows import Row, Spread, finish


def test_spread_is_of_the_middle_half():
    spread = Spread.of([5, 1, 2, 4, 3])
    assert spread == Spread(3.0, (2.0, 4.0))
    assert spread.text(1) == "3.0 (2.0–4.0)"
    assert Spread.of([7]).text() == "7.00"
    ratios = Spread.of_ratios([2, 6, 12], [1, 2, 3])
    assert ratios == Spread(3.0, (2.5, 3.5))
    with pytest.raises(ValueError):
        Spread.of_ratios([1, 2], [1])


def test_goals():
    row = Row("step", "over float", Spread(1.2), at_most=1.2)
    assert (row.goal, row.reached) == ("at most 1.2", "yes")
    worse = dataclasses.replace(row, spread=Spread(1.21))
    assert worse.reached == "no"
    share = Row("share", "of invoke", Spread(0.89), at_least=0.9)
    assert (share.goal, share.reached) == ("at least 0.9", "no")
    assert Row("a", "b", Spread(float("nan")), at_most=1.0).reached == "no"
    assert Row("a", "b", Spread(1.0)).reached == "–"


def test_rows_come_back_from_their_file(tmp_path):
    rows = [
        Row("a", "b", Spread(1.5, (1.0, 2.0)), at_most=2.0),
        Row("c", "d", Spread(0.5), at_least=0.25),
    ]
    finish(tmp_path / "found.json", rows, rounds=3)
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["rows"] and content["rounds"] == 3
    assert [Row.from_json(fields) for fields in content["rows"]] == rows


def test_a_busy_core_is_seen():
    code = "import time\nwhile time.process_time() < 0.4: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    begun = time.monotonic()
    busy = 0.0
    while process.poll() is None:
        busy += 0.2 * machine.busy_cores(0.2)
    assert busy >= 0.3  # seconds of a core, ours among them
    assert busy <= (time.monotonic() - begun + 1.0) * os.cpu_count()


_MODULE = """\
import pathlib, sys
from benchmarks.rows import Row, Spread, finish
calls = pathlib.Path("calls")
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
finish(sys.argv[-1].removeprefix("--output="), [Row("w", "r", Spread(2.0))])
sys.exit("--fail" in sys.argv)
"""


def test_a_part_is_run_once_for_each_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.1)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    (tmp_path / "part.py").write_text(_MODULE)
    assert parts.measure("p", ["part", "--fail"], tmp_path) is None
    for _ in range(2):
        found = parts.measure("p", ["part"], tmp_path)
        assert found["rows"][0]["spread"]["median"] == 2.0
        assert found["seconds"] > 0.0 <= found["busy"]
    assert (tmp_path / "calls").read_text() == "xx"
    parts.measure("p", ["part", "--other"], tmp_path)
    assert (tmp_path / "calls").read_text() == "xxx"
    text = document.text({"p": found}, ["q"], quick=True)
    assert "| w      | r       | 2.00       | –      | –         |" in text
    assert "| p      | `python -m part` |" in text
    assert "Nothing else was running." in " ".join(text.split())
    text = document.text({"p": found | {"busy": 1.0}}, ["q"], quick=True)
    assert "Other programs were running" in " ".join(text.split())
    assert "Not measured: q." in text and 'ARGS="--quick"' in text
