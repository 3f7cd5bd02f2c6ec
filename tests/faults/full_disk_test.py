"""A full disk is said in one sentence, and costs nothing that was there."""

import shutil

import pytest

from qgen_tf import errors, training
from qgen_tf.study import exporting, measuring, publishing, records, trial
from qgen_tf.training import RunDirectory
from tests.faults import disk

pytestmark = pytest.mark.slow
_TRAINED = (
    *("config.json", "initial.weights.h5", "final.weights.h5"),
    *("history.csv", "train.json"),
)


@pytest.fixture
def copy(done, tmp_path):
    """A run that is trained."""
    path = tmp_path / done.path.name
    path.mkdir()
    for name in _TRAINED:
        shutil.copy(done.path / name, path / name)
    return RunDirectory(path)


def _same(run, other, names):
    for name in names:
        assert (run.path / name).read_bytes() == (
            other.path / name
        ).read_bytes(), name


def test_training(config, done, tmp_path, refused, capsys):
    for finished, name in (
        (0, "config.json"),
        (1, "initial.weights.h5"),
        (1, "history.json"),
        (2, "backup"),
        (2, "backup"),
        (3, "backup"),  # the second epoch; the first one is kept
        (2, "final.weights.h5"),
        (2, "train.json"),
    ):
        with disk.full(finished), refused(f"cannot write .*{name}: File too"):
            training.train(config, tmp_path)
        assert not disk.unfinished(tmp_path)
    run = training.train(config, tmp_path)
    _same(run, done, _TRAINED)
    assert disk.contents(run.path).keys() == {*_TRAINED}


def test_measuring(config, done, copy, refused, capsys):
    for finished, name in enumerate(("quantization.csv", "measures.json")):
        with disk.full(finished), refused(f"cannot write .*{name}: File too"):
            measuring.measure(copy.path, config.measures)
    assert disk.contents(copy.path).keys() == {*_TRAINED, "quantization.csv"}
    measuring.measure(copy.path, config.measures)
    _same(copy, done, [measuring.MEASURES_FILE, measuring.QUANTIZATION_FILE])


def test_exporting(done, copy, refused, capsys):
    for finished, name in (
        (0, "model.tflite"),
        (1, "verification.txt"),
        (1, "verification.html"),
        (2, "verification.json"),
    ):
        with disk.full(finished), refused(f"cannot write .*{name}: File too"):
            exporting.verify(copy.path)
        assert not disk.unfinished(copy.path)
    assert not exporting.is_verified(copy.path)
    exporting.verify(copy.path)
    _same(copy, done, [exporting.MODEL_FILE])


def test_reporting(done, tmp_path, refused, capsys):
    frame = records.frame([done])
    publishing.publish(frame, [done], tmp_path)
    before = disk.contents(tmp_path)
    for finished, name in enumerate(
        ("records.parquet", "records.csv", "noise.csv", "hparams")
    ):
        with disk.full(finished), refused(f"cannot write .*{name}: File too"):
            publishing.publish(frame, [done], tmp_path)
        assert not disk.unfinished(tmp_path)
        assert disk.contents(tmp_path) == before
    with disk.full(4), refused("cannot write .*report.html: File too"):
        publishing.publish(frame, [done], tmp_path)
    path = tmp_path / "report.html"
    assert path.read_bytes() == before[path.name]
    publishing.publish(frame, [done], tmp_path)
    assert not disk.unfinished(tmp_path)


def test_a_disk_of_memory_that_grows(config, done, tmp_path, capsys):
    with disk.mounted(tmp_path, "size=4k") as resize:
        reasons = []
        for kilobytes in (4, 16, 256, 1200, 1300, 4000):
            resize(f"size={kilobytes}k")
            try:
                run = trial.run(config, tmp_path)
            except errors.RunDirectoryError as error:
                reasons.append(str(error))
            assert not disk.unfinished(tmp_path)
        assert len(reasons) >= 3
        for reason in reasons:
            assert "\n" not in reason and "No space left on device" in reason
        _same(run, done, [*_TRAINED, measuring.MEASURES_FILE])
        _same(run, done, [exporting.MODEL_FILE, "corruptions.json"])
