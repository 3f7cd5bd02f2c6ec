"""Reports as Markdown: the same tables, and figures in files."""

import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from qgen_tf.study.reporting import markdown, report_tables
from qgen_tf.study.statistics import claims, verdicts
from tests.study.reporting import report_records

_ACCURACY = "Accuracy [%] and its gap [points]"


@pytest.fixture(scope="module")
def frame():
    return report_records.records(num_floats=6)


@pytest.fixture(scope="module")
def folder(frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert markdown.write(frame, [], folder) == folder / "report.md"
    return folder


def _rows(text, title):
    """Returns the cells of the table below a heading, without the headings."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines[2:]
    ]


def test_every_claim_has_its_verdict(frame, folder):
    rows = _rows((folder / "report.md").read_text(), "The claims of the paper")
    found = verdicts.frame(claims.all(frame))
    assert [row[0].split(".")[0] for row in rows] == [
        str(number) for number in found["claim"]
    ]
    assert [row[1].strip("*") for row in rows] == list(found["verdict"])


def test_tables_are_those_of_the_report(frame, folder):
    rows = _rows((folder / "report.md").read_text(), _ACCURACY)
    expected = report_tables.outcomes(frame, "accuracy")
    assert rows == [
        [str(cell) for cell in row] for row in expected.to_numpy().tolist()
    ]


def test_every_figure_is_there_and_a_picture(folder):
    text = (folder / "report.md").read_text()
    files = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(files) == len(set(files)) > 3
    for file in files:
        root = ElementTree.parse(folder / file).getroot()
        assert root.tag.endswith("svg") and len(root) > 0
    assert {folder / file for file in files} == set(
        (folder / "figures").iterdir()
    )


def test_views_do_not_overwrite_each_other(tmp_path):
    both = pd.concat(
        [
            report_records.records(stop_at_loss=0.0),
            report_records.records(stop_at_loss=0.25, seed=1),
        ],
        ignore_index=True,
    )
    text = markdown.write(both, [], tmp_path).read_text()
    assert "# At matched loss" in text and "# At fixed epochs" in text
    files = re.findall(r"\(figures/([^)]+)\)", text)
    assert len(files) == len(set(files))
    assert {file.split("_")[0] for file in files} == {"loss", "epochs"}


def test_bars_in_cells_are_no_columns(folder):
    rows = _rows((folder / "report.md").read_text(), "The claims of the paper")
    assert len({len(row) for row in rows}) == 1
