"""`qgen-report` as a user meets it: files, recommendation, mistakes."""

import pandas as pd
import pytest

from qgen_tf.study import records
from tests import forks, tiny
from tests.study import fake_runs
from tests.study.reporting import report_records

_FILES = {"report.html", "records.parquet", "records.csv", "hparams"}


@pytest.fixture
def workdir(tmp_path):
    """Returns a folder of three float models with twins, one unfinished."""
    config = tiny.config()
    for seed in range(3):
        config.seed = seed
        for bits in (None, (4, 8)):
            # in a gap of 8 points the twins are better by 2.5, 3, 3.5
            better = 0.0 if bits is None else 2.5 + 0.5 * seed
            run = fake_runs.make(
                tmp_path / "runs",
                config,
                bits=bits,
                test=(90.0 + better, 0.5),
            )
    config.seed = 3
    run = fake_runs.make(tmp_path / "runs", config)
    (run.path / "measures.json").unlink()
    return tmp_path / "runs"


def _run(*arguments, cwd=None):
    found = forks.run(forks.command, "report", *arguments, cwd=cwd)
    return found.returncode, found.stdout, found.stderr


@pytest.mark.slow
def test_runs_are_reported_and_recommended(workdir):
    flags = (f"--workdir={workdir}", "--name=tiny")
    status, recommended, stderr = _run(*flags, "--recommend")
    assert status == 0, stderr
    words = " ".join(recommended.split())
    assert "Choose w4a8. Over 3 float models, its files" in words
    assert [path.name for path in workdir.iterdir() if path.name == "tiny"] == (
        []
    )
    status, stdout, stderr = _run(*flags)
    assert status == 0, stderr
    assert "1 of 7 runs are not finished: tiny-float-" in stderr
    assert "(not measured)" in stderr
    folder = workdir / "tiny"
    assert {path.name for path in folder.iterdir()} == _FILES | {"noise.csv"}
    assert stdout.splitlines()[-1] == str(folder / "report.html")
    # two points worse are the files of all models: 88.00, and 91.00
    assert "gap [points]" in stdout and "5.00 ± 0.29" in stdout
    loaded = records.load(folder / "records.csv")
    assert len(loaded) == 6
    assert list(pd.read_csv(folder / "noise.csv")["num_bits"]) == [4] * 6


@pytest.mark.slow
def test_records_and_runs_are_put_together(workdir, tmp_path):
    frame = report_records.records(num_floats=4)
    clusters = frame["twin_of"].unique()
    for part, chosen in (("a", clusters[:2]), ("b", clusters[2:])):
        records.write(frame[frame["twin_of"].isin(chosen)], tmp_path / part)
    status, stdout, stderr = _run(
        "--records=a/records.csv,b/records.parquet,runs", cwd=tmp_path
    )
    assert status == 0, stderr
    assert stderr.startswith("1 of 7 runs are not finished: tiny-float-")
    assert stdout.splitlines()[-1] == "report/report.html"
    assert stdout.splitlines()[1].split() == ["models", *"7474"]
    folder = tmp_path / "report"
    # with the noise of those that have a directory
    assert {path.name for path in folder.iterdir()} == _FILES | {"noise.csv"}
    assert len(records.load(folder / "records.parquet")) == len(frame) + 6
    assert len([*(folder / "hparams").glob("*/*tfevents*")]) == len(frame) + 6


def test_mistakes_are_one_sentence(tmp_path):
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    cases = {
        (): "--name is missing",
        ("--records=foreign.csv",): "no column 'a'",
    }
    for flags, message in cases.items():
        status, stdout, stderr = _run(*flags, cwd=tmp_path)
        assert (status, stdout) == (2, "")
        (line,) = stderr.splitlines()
        assert line.startswith("qgen-report: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["foreign.csv"]
