"""The report: of one model, of twins, of a study, of thousands."""

import re

import numpy as np
import pandas as pd
import pytest

from qgen_tf import training
from qgen_tf.measures import MEASURES
from qgen_tf.study import measuring, records
from qgen_tf.study.reporting import (
    landscapes,
    markdown,
    report,
    report_views,
)
from tests import tiny
from tests.study.reporting import report_records


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = tiny.copies(tmp_path_factory.mktemp("runs"))
    settings = tiny.config().measures
    settings.names = (*settings.names, measuring.LOSS_RISES)
    for run in made:
        measuring.measure(run.path, settings)
    return made


@pytest.fixture(scope="module")
def frame(runs):
    return records.frame(runs)


def _write(frame, folder, runs=(), **settings):
    path = report.write(frame, runs, folder, **settings)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def _text(page):
    """Returns what a reader reads, with single spaces."""
    page = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def _unmeasured(frame):
    return frame[[name for name in frame if name not in MEASURES]]


@pytest.fixture(scope="module")
def page(runs, frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    content = _write(frame, folder, runs)
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return content


def test_the_report_of_a_float_model_and_its_twin(runs, page):
    text = _text(page)
    assert "Generalization of tiny" in text
    assert "2 models: 1 float model, each with" in text
    assert "w4a8" in text and "cannot tell" in text
    assert "block0_mix0_conv" in text  # noise and what is quantized
    assert "Outside of the band of 20 %" in text
    assert "of two float models or more" in text  # no ranking
    assert text.count(" undecided ") >= 10
    assert "No trial in the folder of these runs has failed" in text
    assert "No landscape was taken" in text
    assert f"qgen-report --name=tiny --workdir={runs[0].path.parent.name}" in (
        text
    )


def test_the_report_needs_no_network(page):
    assert "http" not in page
    for link in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert link.startswith(("data:", "#")), link


def test_contents_lead_to_every_section(page):
    links = re.findall(r'<a href="#(\w+)"', page)
    assert links == re.findall(r'<h2 id="(\w+)"', page)
    assert len(links) == 13


def test_the_report_is_the_same_when_it_is_written_again(
    runs, frame, page, tmp_path
):
    assert _write(frame, tmp_path, runs) == page


def test_the_report_of_a_float_model_alone(runs, frame, tmp_path):
    page = _write(frame.iloc[:1], tmp_path, runs[:1])
    text = _text(page)
    assert "1 model: 1 float model" in text
    assert "All models are float: they have no bins." in text
    assert "No bits can be recommended" in text
    assert page.count("<img") == 11


def test_records_alone_say_what_run_directories_would_show(tmp_path):
    text = _text(_write(report_records.records(num_floats=2), tmp_path))
    assert "this report was made of records alone" in text
    assert "Histories of training are in the run directories" in text
    assert "No trial in the folder" not in text


def test_claims_have_their_verdicts(tmp_path):
    page = _write(report_records.records(num_floats=8), tmp_path)
    assert page.count('<span class="verdict supported">supported</span>') == 9
    assert page.count('<span class="verdict undecided">undecided</span>') == 1
    text = _text(page)
    assert "9 / 0 / 1 claims supported, contradicted, undecided" in text
    assert "There are no transformers with twins" in text
    assert "<h3>At" not in page  # one view has no heading


def test_a_contradicted_claim_is_shown_as_such(tmp_path):
    frame = report_records.records(num_floats=8)
    rising = {"float": 0.0, "w8a8": 2.0, "w4a8": 8.0, "w2a8": 20.0}
    frame["gap"] += frame["bits"].map(rising)
    page = _write(frame, tmp_path)
    assert '<span class="verdict contradicted">contradicted</span>' in page


def test_views_are_kept_apart(tmp_path):
    fixed = _unmeasured(report_records.records(num_floats=3))
    matched = _unmeasured(
        report_records.records(num_floats=2, stop_at_loss=0.25, seed=1)
    )
    frame = pd.concat([fixed, matched], ignore_index=True)
    views = report_views.split(frame)
    assert [view["title"] for view in views] == [
        "At matched loss",
        "At fixed epochs",
    ]
    assert [view["num_models"] for view in views] == [8, 12]
    assert "0.25 nats" in views[0]["note"]
    (view,) = report_views.split(matched)
    pd.testing.assert_frame_equal(view["accuracy"], views[0]["accuracy"])
    assert view["verdicts"] == views[0]["verdicts"]
    page = _write(frame, tmp_path)
    assert page.count("<h3>At matched loss</h3>") == 9
    assert page.count('class="claims"') == 2


def test_what_ran_out_of_epochs_is_not_at_matched_loss():
    frame = _unmeasured(report_records.records(num_floats=4, stop_at_loss=0.25))
    twin = frame.index[frame["bits"] != "float"][0]
    frame.loc[twin, "stopped_at_loss"] = np.nan
    matched, above = report_views.split(frame)
    assert (matched["num_models"], above["num_models"]) == (15, 16)
    assert above["title"] == "At matched loss or above"
    # a float model takes its twins along
    (last,) = frame["twin_of"].dropna().unique()[-1:]
    frame.loc[frame["run"] == last, "stopped_at_loss"] = np.nan
    matched, above = report_views.split(frame)
    assert (matched["num_models"], above["num_models"]) == (11, 16)


def test_failed_trials_are_listed(runs, frame, tmp_path):
    failed = training.RunDirectory.create(
        runs[0].path.parent, training.with_bits(tiny.config(), 3, 8)
    )
    other = tiny.config()
    other.name = "other"
    stranger = training.RunDirectory.create(runs[0].path.parent, other)
    failure = {"stage": "train", "reason": "disk <full>", "traceback": ""}
    for run in (failed, stranger):
        run.write_json("failure.json", failure)
    page = _write(frame, tmp_path, runs)
    assert "1 trial failed at its last attempt" in _text(page)
    assert failed.path.name in page and stranger.path.name not in page
    assert "disk &lt;full&gt;" in page


def test_a_landscape_is_taken_and_drawn_again(
    runs, frame, tmp_path, monkeypatch
):
    monkeypatch.setattr(landscapes, "_NUM_POINTS", 3)
    for settings in ({"landscape": True}, {}):
        page = _write(frame.iloc[:1], tmp_path, runs[:1], **settings)
        assert "Wider contours are flatter minima" in page
    assert list(landscapes.read(tmp_path)) == ["float"]


def test_without_measures_there_is_no_ranking(tmp_path):
    frame = _unmeasured(report_records.records(num_floats=2))
    text = _text(_write(frame, tmp_path))
    assert "No measure was taken of these models" in text
    assert "Not to be had of these records" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_models", [504, pytest.param(2000, marks=pytest.mark.full)]
)
def test_many_models_make_a_small_page(tmp_path, num_models):
    frame = report_records.records(num_floats=num_models // 4)
    page = _write(frame, tmp_path)
    assert len(frame) == num_models
    assert len(page) < 10e6
    assert "A row for each model would be too much" in _text(page)


_HOSTILE = "<img src=x onerror=alert(1)>'\"&|`](javascript:x)"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_text_of_records_is_no_html(tmp_path, suffix):
    columns = ("name", "model", "dataset", "optimizer", "quantizer", "verdict")
    frame = report_records.records(num_floats=1)
    bits = frame["bits"].replace("w2a8", _HOSTILE)
    frame = frame.assign(bits=bits, **dict.fromkeys(columns, _HOSTILE))
    records.write(frame, tmp_path)
    loaded = records.load(tmp_path / f"records.{suffix}")
    assert (loaded["model"] == _HOSTILE).all()
    page = _write(loaded, tmp_path)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > len(columns)
    text = markdown.write(loaded, [], tmp_path).read_text()
    assert text.count("<img") > len(columns)
    assert not re.search(r"(?<!\\)<img", text)
