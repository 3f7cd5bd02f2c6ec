"""What a kill at the worst moment leaves is cleared away."""

import shutil

import pytest

from qgen_tf import training
from qgen_tf.study import trial
from qgen_tf.training import RunDirectory
from tests import tiny
from tests.faults import disk


def _half_a_file(path):
    path.write_text('{"name": ')


def _a_folder(path):
    path.mkdir()
    _half_a_file(path / path.name)


@pytest.mark.parametrize("name", ["", "4711-"])
@pytest.mark.parametrize("leave", [_half_a_file, _a_folder])
def test_before_the_first_file(tmp_path, leave, name):
    path = training.run_path(tmp_path, tiny.config())
    path.mkdir()
    leave(path / f".writing-{name}config.json")
    run = RunDirectory.create(tmp_path, tiny.config())
    assert disk.contents(run.path).keys() == {"config.json"}
    assert not disk.unfinished(run.path)


def test_after_the_last_file(config, done, tmp_path):
    workdir = tmp_path / "runs"
    shutil.copytree(done.path.parent, workdir)
    before = disk.contents(workdir)
    backup = workdir / done.path.name / "backup"
    backup.mkdir()
    (backup / "ckpt-2.index").write_text("half")
    assert not trial.is_done(config, workdir)
    trial.run(config, workdir)
    assert trial.is_done(config, workdir)
    after = disk.contents(workdir)
    assert after.keys() == before.keys()
    for name, content in before.items():
        assert name.endswith(trial.SECONDS_FILE) or after[name] == content
