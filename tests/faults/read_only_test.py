"""What may not be written is read still, and left as it is."""

import shutil

import pytest

from qgen_tf import data, training
from qgen_tf.study import (
    distorting,
    explaining,
    exporting,
    measuring,
    publishing,
    records,
)
from qgen_tf.training import RunDirectory
from tests import tiny
from tests.faults import disk


@pytest.fixture
def runs(done, public_folder):
    """A folder of a finished run and of one that is begun."""
    shutil.copytree(done.path, public_folder / done.path.name)
    RunDirectory.create(public_folder, tiny.config(epochs=7))
    return public_folder


def test_nothing_is_written(config, done, runs, refused):
    path = runs / done.path.name
    frame = records.frame([done])
    before = disk.contents(runs)
    other = config.copy_and_resolve_references()
    other.measures.num_examples = 32
    other.corruptions.severities = (2,)
    with data.shared():
        data.load(config.dataset)  # of a folder that others may not read
        with disk.read_only(runs):
            for attempt in (
                lambda: training.train(tiny.config(epochs=1), runs),
                lambda: training.train(tiny.config(epochs=7), runs),
                lambda: measuring.measure(path, other.measures),
                lambda: exporting.export(
                    path, exporting.Settings(storage="int4")
                ),
                lambda: exporting.verify(path, exporting.Settings(margin=1.0)),
                lambda: explaining.explain(path),
                lambda: distorting.distort(
                    path, other.corruptions, runs / "new"
                ),
                lambda: publishing.publish(frame, [done], runs / "report"),
            ):
                with refused("cannot write .*: Permission denied"):
                    attempt()
    assert disk.contents(runs) == before


def test_a_finished_run_needs_no_writing(config, done, runs, monkeypatch):
    # without the rights of root there may be no Python to start
    monkeypatch.setattr(exporting.sandbox, "probe", lambda *_, **__: None)
    path = runs / done.path.name
    with disk.read_only(runs):
        assert training.train(config, runs).path == path
        assert measuring.measure(path, config.measures)["gap"]
        assert exporting.export(path).is_file()
        assert exporting.verify(path)["sha256"]
        assert distorting.distort(path, config.corruptions, runs / "none")
        assert len(records.frame([RunDirectory(path)])) == 1
