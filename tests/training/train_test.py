"""Training: an interrupted run ends as one that was not interrupted."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from qgen_tf import data, errors, training
from qgen_tf.compat import keras
from qgen_tf.measures import predictor
from qgen_tf.quantization import align, quantization_report
from tests import tiny

pytestmark = pytest.mark.slow


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


def test_a_training_starts_from_the_weights_of_a_file(undisturbed, tmp_path):
    config = tiny.config()
    config.training.pretrained = str(undisturbed.path / "final.weights.h5")
    run = training.train(config, tmp_path)
    start, end = _weights(run, "initial.weights.h5"), _weights(undisturbed)
    assert start.keys() == end.keys()
    for path, values in start.items():
        np.testing.assert_array_equal(values, end[path], err_msg=path)
    config.training.pretrained = str(tmp_path / "none.npz")
    with pytest.raises(errors.ModelError, match="no file of weights"):
        training.train(config, tmp_path)
    config.training.pretrained = "imagenet"
    config.model = {"name": "mobilenet_v2", "alpha": 0.1}
    with pytest.raises(errors.ConfigError, match="want 'symmetric'"):
        training.train(config, tmp_path)
    config.model = tiny.config().model
    with pytest.raises(errors.ConfigError, match="no weights for 'nin'"):
        training.train(config, tmp_path)


def _hard_config():
    config = tiny.config()
    config.model.dropout = 0.2
    config.dataset.update({"flip": True, "crop_padding": 1, "mixup": 0.2})
    return config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return training.train(_hard_config(), tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_training_goes_on_where_it_stopped(
    undisturbed, tmp_path, monkeypatch, epochs
):
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, epochs)
        with pytest.raises(KeyboardInterrupt):
            training.train(_hard_config(), tmp_path)
    run = training.train(_hard_config(), tmp_path)
    _assert_equal_runs(undisturbed, run)
    assert not (run.path / "backup").exists()


def test_a_training_that_died_at_its_end_is_only_finished(
    undisturbed, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, 3)
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
def trained(tmp_path_factory):
    """The run of a twin, and the model as it was when its training ended."""
    seen = []
    finish = training.train.__globals__["_finish"]

    def spying(run, model, *rest):
        seen.append(model)
        finish(run, model, *rest)

    config = training.with_bits(tiny.config(), 4, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.train.__globals__, "_finish", spying)
        run = training.train(config, tmp_path_factory.mktemp("runs"))
    return run, seen[-1]


@pytest.fixture(scope="module")
def twin(trained):
    return trained[0]


def _with_float_run(run, workdir):
    """Copies the float model of a run, which need not be trained again."""
    (path,) = run.path.parent.glob("tiny-float-*")
    shutil.copytree(path, workdir / path.name)


def test_a_twin_brings_its_float_model(twin):
    runs = sorted(
        path.name.rsplit("-", 1)[0] for path in twin.path.parent.iterdir()
    )
    assert runs == ["tiny-float", "tiny-w4a8"]


def test_a_loaded_model_is_the_trained_one(trained):
    run, model = trained
    images = next(iter(data.load(run.config.dataset).test.batch(100)))[0]
    expected = predictor(model)(images)
    assert np.isfinite(expected).all() and expected.std() > 0
    np.testing.assert_array_equal(
        predictor(training.load_model(run.path))(images), expected
    )


@pytest.mark.parametrize("name", ["twin", "full"])
def test_a_trained_twin_is_aligned(name, request):
    model = training.load_model(request.getfixturevalue(name).path)
    weights = model.get_weights()
    moves = align(model)
    assert len(moves) >= 4 and max(moves.values()) < 1e-3
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def _full_config():
    """Every aid to low bits at once, in two epochs of a twin."""
    config = training.with_bits(tiny.config(epochs=1), 2, 4)
    config.training.mixed_precision = "mixed_bfloat16"
    config.quantization.update(
        {
            "quantizer": "lsq_plus",
            "overrides": (("*_mix1_conv", 5, 6),),
            "step_learning_rate": 2.0,
            "epochs": 2,
            "distillation": 0.5,
            "temperature": 2.0,
            "dampening": 0.1,
            "reestimate_norms": 100,
        }
    )
    return config


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return training.train(_full_config(), tmp_path_factory.mktemp("runs"))


def test_a_training_with_all_aids_goes_on_where_it_stopped(
    full, tmp_path, monkeypatch
):
    _with_float_run(full, tmp_path)
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            training.train(_full_config(), tmp_path)
    assert keras.mixed_precision.global_policy().name == "float32"
    _assert_equal_runs(full, training.train(_full_config(), tmp_path))


def test_a_loaded_model_with_all_aids(full):
    model = training.load_model(full.path)
    assert model.compute_dtype == "float32"
    bits = quantization_report(model).set_index("layer")["weight_bits"].dropna()
    assert bits["block0_mix0_conv"] == 2 and bits["block0_mix1_conv"] == 5
    images = next(iter(data.load(full.config.dataset).test.batch(50)))[0]
    assert np.isfinite(predictor(model)(images)).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantizer", "ewgs"),
        pytest.param(
            *("overrides", (("block0_mix0_conv", 8, 8),)),
            marks=pytest.mark.full,
        ),
        ("step_learning_rate", 3.0),
        ("distillation", 0.9),
        ("dampening", 1.0),
        ("reestimate_norms", 64),
    ],
)
def test_each_aid_changes_the_result(twin, field, value):
    config = training.with_bits(tiny.config(), 4, 8)
    config.quantization[field] = value
    run = training.train(config, twin.path.parent)
    first, second = _weights(twin), _weights(run)
    assert first.keys() == second.keys() or field == "quantizer"
    differ = {
        path
        for path in first.keys() & second.keys()
        if not np.array_equal(first[path], second[path])
    }
    assert differ
    if field == "reestimate_norms":
        history = "history.csv"
        assert (twin.path / history).read_text() == (
            run.path / history
        ).read_text()
        assert all("batch_normalization" in path for path in differ), differ


def test_float16_is_trained_with_a_scaled_loss(tmp_path, monkeypatch):
    config = tiny.config(epochs=2, mixed_precision="mixed_float16")
    config = training.with_bits(config, 4, 4)
    config.quantization.epochs = 2
    run = training.train(config, tmp_path / "one")
    histories = [*(tmp_path / "one").glob("*/history.csv")]
    assert len(histories) == 2  # of the float model and of its twin
    for history in map(pd.read_csv, histories):
        assert history["loss"][1] < history["loss"][0] < 3.0
    _with_float_run(run, tmp_path / "other")
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            training.train(config, tmp_path / "other")
    _assert_equal_runs(run, training.train(config, tmp_path / "other"))


def test_damaged_weights_are_named(twin, tmp_path):
    path = shutil.copytree(twin.path, tmp_path / "run")
    (path / "final.weights.h5").write_bytes(b"not an archive")
    with pytest.raises(errors.RunDirectoryError, match="final.weights.h5"):
        training.load_model(path)


def test_divergence_is_an_error_and_leaves_no_result(tmp_path):
    config = tiny.config(optimizer="sgd", learning_rate=1e20, epochs=2)
    with pytest.raises(errors.ModelError, match="diverged in epoch"):
        training.train(config, tmp_path)
    assert not list(tmp_path.glob("*/train.json"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("training.epochs", 0, "epochs is 0"),
        ("training.batch_size", 0, "batch_size is 0"),
        ("training.mixed_precision", "float8", "mixed_precision is 'float8'"),
        ("quantization.calibration_examples", 0, "calibration_examples is 0"),
        ("quantization.weight_bits", 9, "weight_bits is 9"),
        ("quantization.activation_bits", 1, "activation_bits is 1"),
        ("quantization.first_last_bits", 32, "first_last_bits is 32"),
        ("quantization.quantizer", "fsq", "quantizer 'fsq' is unknown"),
        ("quantization.overrides", (("*", 4),), "overrides has"),
        ("quantization.step_learning_rate", 0.0, "step_learning_rate is 0"),
        ("quantization.distillation", 1.1, "distillation is 1.1"),
        ("quantization.temperature", 0.0, "temperature is 0"),
        ("quantization.dampening", -0.1, "dampening is -0.1"),
        ("quantization.reestimate_norms", -1, "reestimate_norms is -1"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(
    tmp_path, field, value, message
):
    config = training.with_bits(tiny.config(), 4, 8)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(errors.ConfigError, match=message):
        training.train(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_override_of_no_layer_is_refused_before_anything_runs(tmp_path):
    config = training.with_bits(tiny.config(), 4, 8)
    config.quantization.overrides = (("blok*", 8, 8),)
    with pytest.raises(errors.ConfigError, match="'blok\\*' matches no layer"):
        training.train(config, tmp_path)
    assert not list(tmp_path.iterdir())
