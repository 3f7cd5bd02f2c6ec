"""Training: an interrupted run ends as one that was not interrupted."""

import h5py
import numpy as np
import pandas as pd
import pytest

from qgen_tf import data, errors, training
from qgen_tf.measures import predictor
from qgen_tf.training import callbacks
from tests import tiny


def _weights(run, name="final.weights.h5"):
    arrays = {}
    with h5py.File(run.path / name) as file:
        file.visititems(
            lambda path, item: (
                arrays.update({path: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert arrays
    return arrays


def _assert_equal_runs(one, other):
    for name in ("initial.weights.h5", "final.weights.h5"):
        first, second = _weights(one, name), _weights(other, name)
        assert first.keys() == second.keys()
        for path, values in first.items():
            np.testing.assert_array_equal(values, second[path], err_msg=path)
    for name in ("history.csv", "train.json", "config.json"):
        assert (one.path / name).read_text() == (other.path / name).read_text()


def _stop_after(monkeypatch, epochs):
    """Makes a training die right behind the backup of an epoch."""
    original = callbacks.EpochBackup.on_epoch_end

    def dying(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.EpochBackup, "on_epoch_end", dying)


def _hard_config():
    config = tiny.config()
    config.model.dropout = 0.2
    config.dataset.update({"flip": True, "crop_padding": 1, "mixup": 0.2})
    return config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return training.train(_hard_config(), tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_goes_on_where_it_stopped(
    undisturbed, tmp_path, monkeypatch, epochs
):
    with monkeypatch.context() as patch:
        _stop_after(patch, epochs)
        with pytest.raises(KeyboardInterrupt):
            training.train(_hard_config(), tmp_path)
    run = training.train(_hard_config(), tmp_path)
    _assert_equal_runs(undisturbed, run)
    assert not (run.path / "backup").exists()


def test_a_training_that_died_at_its_end_is_only_finished(
    undisturbed, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        _stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            training.train(_hard_config(), tmp_path)
    _assert_equal_runs(undisturbed, training.train(_hard_config(), tmp_path))


def test_a_finished_training_is_left_as_it_is(undisturbed):
    stamps = {
        path: path.stat().st_mtime_ns for path in undisturbed.path.iterdir()
    }
    again = training.train(_hard_config(), undisturbed.path.parent)
    assert again.path == undisturbed.path
    assert stamps == {
        path: path.stat().st_mtime_ns for path in undisturbed.path.iterdir()
    }


def test_what_a_kill_at_the_very_end_leaves_is_removed(undisturbed):
    (undisturbed.path / "backup").mkdir()
    training.train(_hard_config(), undisturbed.path.parent)
    assert not (undisturbed.path / "backup").exists()


def test_history_has_a_row_an_epoch(undisturbed):
    history = pd.read_csv(undisturbed.path / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert np.isfinite(history["loss"]).all()
    assert history["accuracy"].between(0, 1).all()


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    config = training.with_bits(tiny.config(), 4, 8)
    return training.train(config, tmp_path_factory.mktemp("runs"))


def test_a_twin_brings_its_float_model(twin):
    runs = sorted(
        path.name.rsplit("-", 1)[0] for path in twin.path.parent.iterdir()
    )
    assert runs == ["tiny-float", "tiny-w4a8"]


def test_a_loaded_model_is_the_trained_one(twin, tmp_path, monkeypatch):
    trained = []
    original = training.train.__globals__["_finish"]

    def spying(run, model, *rest):
        trained.append(model)
        original(run, model, *rest)

    monkeypatch.setitem(training.train.__globals__, "_finish", spying)
    run = training.train(training.with_bits(tiny.config(), 4, 8), tmp_path)
    images = next(iter(data.load(run.config.dataset).test.batch(100)))[0]
    expected = predictor(trained[-1])(images)
    assert np.isfinite(expected).all() and expected.std() > 0
    np.testing.assert_array_equal(
        predictor(training.load_model(run.path))(images), expected
    )
    np.testing.assert_array_equal(
        predictor(training.load_model(twin.path))(images), expected
    )


def test_damaged_weights_are_named(twin, tmp_path):
    config = tiny.config()
    run = training.train(config, tmp_path)
    (run.path / "final.weights.h5").write_bytes(b"not an archive")
    with pytest.raises(errors.RunDirectoryError, match="final.weights.h5"):
        training.load_model(run.path)


def test_divergence_is_an_error_and_leaves_no_result(tmp_path):
    config = tiny.config(optimizer="sgd", learning_rate=1e20, epochs=2)
    with pytest.raises(errors.ModelError, match="diverged in epoch"):
        training.train(config, tmp_path)
    assert not list(tmp_path.glob("*/train.json"))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("training", "epochs", 0),
        ("training", "batch_size", 0),
        ("quantization", "calibration_examples", 0),
        ("quantization", "weight_bits", 9),
        ("quantization", "activation_bits", 1),
        ("quantization", "first_last_bits", 32),
    ],
)
def test_wrong_numbers_are_refused_before_anything_runs(
    tmp_path, part, field, value
):
    config = training.with_bits(tiny.config(), 4, 8)
    config[part][field] = value
    with pytest.raises(errors.ConfigError, match=f"{field} is {value}"):
        training.train(config, tmp_path)
    assert not list(tmp_path.iterdir())
