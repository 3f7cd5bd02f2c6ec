"""Damaged weights and epochs are noticed, and named."""

import shutil

import numpy as np
import pytest

from qgen_tf import errors, training
from qgen_tf.compat import keras
from qgen_tf.training import RunDirectory, callbacks
from tests import tiny
from tests.faults import disk


def _truncate(content, generator):
    return content[: generator.integers(len(content))]


def _flip_bit(content, generator):
    data = bytearray(content)
    data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    return bytes(data)


def _empty(content, generator):
    return b""


DAMAGES = (_truncate, _flip_bit, _empty)


def _backup(run):
    """Returns a model of its own and what keeps the epochs of a run."""
    model = keras.Sequential([keras.layers.Dense(4, input_shape=(8,))])
    model.compile(keras.optimizers.Adam(), "mse")
    model.optimizer.build(model.trainable_variables)
    return model, callbacks.EpochBackup(run, model, model.optimizer)


@pytest.fixture
def run(tmp_path):
    """A run whose first two epochs are kept."""
    run = RunDirectory.create(tmp_path, tiny.config())
    _, backup = _backup(run)
    for epoch in range(2):
        backup.on_epoch_end(epoch, {"loss": 1.0, "accuracy": 0.5})
    return run


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name",
    [
        "ckpt-2.index",
        "ckpt-2.data-00000-of-00001",
        "checkpoint",
        "history.json",
    ],
)
def test_a_damaged_epoch_is_no_other_epoch(run, name, damage):
    weights = _backup(run)
    assert weights[1].restore() == 2
    expected = weights[0].get_weights()
    path = run.path / "backup" / name
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(1 if damage is _empty else 10):
        path.write_bytes(damage(content, generator))
        try:
            model, backup = _backup(run)
            done = backup.restore()
        except errors.RunDirectoryError as error:
            assert f"{run.path / 'backup'} is damaged" in str(error)
            assert "\n" not in str(error) and "delete" in str(error)
            refused += 1
            continue
        # a bit that nobody reads, or as if no epoch had been kept
        assert done in (0, 2)
        if done:
            for one, other in zip(model.get_weights(), expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert refused or name == "checkpoint"


def test_a_training_begins_anew_as_the_message_says(
    config, done, tmp_path, monkeypatch, refused
):
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            training.train(config, tmp_path)
    (backup,) = tmp_path.glob("*/backup")
    for path in backup.glob("*.data-*"):
        path.write_bytes(path.read_bytes()[:-1])
    before = disk.contents(tmp_path)
    with refused(f"{backup} is damaged .*: delete that folder"):
        training.train(config, tmp_path)
    assert disk.contents(tmp_path) == before
    shutil.rmtree(backup)
    run = training.train(config, tmp_path)
    for name in ("history.csv", "final.weights.h5", "train.json"):
        assert (run.path / name).read_bytes() == (done.path / name).read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["initial.weights.h5", "final.weights.h5"])
def test_damaged_weights(done, tmp_path, refused, name, damage):
    run = tmp_path / "run"
    shutil.copytree(done.path, run)
    content = (run / name).read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(1 if damage is _empty else 5):
        (run / name).write_bytes(damage(content, generator))
        with refused(f"{name} .*train again"):
            training.load_model(run, initial=name.startswith("initial"))
