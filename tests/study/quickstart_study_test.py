"""The small study, from one command to the report, as a user runs it."""

import os
import subprocess
import sys

import pytest

import qgen_tf.study
from tests import imports

_CONFIG = "sweep_quickstart"


@pytest.mark.slow
def test_the_small_study_ends_with_a_report(tmp_path):
    process = subprocess.run(
        [
            sys.executable,
            *("-m", "qgen_tf.cli.sweep"),
            f"--config={_CONFIG}",
            f"--workdir={tmp_path}",
        ],
        env=os.environ | {"PYTHONPATH": str(imports.REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    folder = tmp_path / _CONFIG
    assert process.stdout.strip().endswith(str(folder / "report.html"))
    frame = qgen_tf.study.load(folder / "records.parquet")
    assert frame["bits"].value_counts().to_dict() == {
        "float": 6,
        "w8a8": 6,
        "w4a8": 6,
        "w2a8": 6,
    }
    assert frame["twin_of"].nunique() == 6
    # the design is one that reaches its loss, so that models can be compared
    floats = frame[frame["bits"] == "float"]
    assert floats["stopped_at_loss"].notna().all()
    outcomes = ["gap", "file_gap", "corrupted_contrast_3_gap", "latency_ms"]
    assert frame[outcomes].notna().all().all()
    assert (folder / "hparams").is_dir()
