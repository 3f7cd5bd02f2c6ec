"""A tiny run goes to a device, which is this machine, and back."""

import base64
import importlib.metadata
import io
import json
import shutil
import subprocess
import sys
import tarfile
import venv

import numpy as np
import pytest

from export import run_on_device
from qgen_tf import data, errors, training
from qgen_tf.measures import evaluate, predictor
from qgen_tf.study import bundling, comparison, exporting, tables
from qgen_tf.training import RunDirectory
from tests import tiny

COUNT = 60


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A float run and its W2A8 twin."""
    workdir = tmp_path_factory.mktemp("runs")
    training.train(training.with_bits(tiny.config(), 2, 8), workdir)
    return workdir


def _copy(workdir, label, target):
    (path,) = workdir.glob(f"*-{label}-*")
    return shutil.copytree(path, target / path.name)


@pytest.fixture(scope="module")
def bundled(workdir, tmp_path_factory):
    """A run, its bundle of all examples and the result of this machine."""
    scratch = tmp_path_factory.mktemp("bundled")
    run_dir = _copy(workdir, "w2a8", scratch)
    archive = bundling.bundle(run_dir, scratch / "out")
    assert archive == scratch / "out.tar.gz"
    return run_dir, scratch / "out", _run(scratch / "out")


def _run(folder):
    """Runs a bundle; returns the path of the result."""
    manifest = run_on_device.read_manifest(str(folder))
    result = run_on_device.run(
        str(folder),
        manifest,
        num_threads=1,
        kernels=manifest["kernels"],
        batch_size=32,
        num_latency_runs=3,
    )
    path = folder / "device_result.json"
    run_on_device.write_result(str(path), result)
    return path


def test_the_device_gives_the_gap_of_the_file(bundled):
    run_dir, folder, result = bundled
    record = comparison.compare(run_dir, result, margin=50.0)
    assert record["verdict"] == "same"
    assert record["equivalence"]["margin"] == 50.0
    for quantity in ("accuracy", "loss"):
        assert record["file_difference"][quantity] == {
            "value": 0.0,
            "low": 0.0,
            "high": 0.0,
        }
    assert record["device_gap"] == record["tflite_gap"]
    assert record["train"]["agreement"]["different_outputs"] == 0
    assert record["test"]["agreement"]["num_examples"] == 100
    assert record["storage"] == "int8" and record["kernels"] == "xnnpack"
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text) == record
    assert "same" in tables.device_text(record)


def test_gaps_are_those_of_an_evaluation(bundled):
    run_dir, folder, result = bundled
    record = comparison.compare(run_dir, result)
    run = RunDirectory(run_dir)
    splits = data.load(run.config.dataset)
    predict = predictor(training.load_model(run_dir))
    trained = [
        evaluate(predict, split.batch(50))
        for split in (splits.train, splits.test)
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    for quantity in ("accuracy", "loss"):
        keras_gap = getattr(trained[0], quantity) - getattr(
            trained[1], quantity
        )
        found = {
            name: record[f"{name}"][quantity]["value"]
            for name in ("keras_gap", "device_gap", "difference")
        }
        assert found["keras_gap"] == pytest.approx(keras_gap, abs=1e-4)
        assert found["device_gap"] == pytest.approx(manifest["gap"][quantity])
        assert found["difference"] == pytest.approx(
            found["device_gap"] - found["keras_gap"], abs=1e-6
        )


def test_a_verification_finds_the_same_gap_of_the_file(bundled):
    run_dir, _, result = bundled
    verified = exporting.verify(run_dir)["tflite_gap"]
    found = comparison.compare(run_dir, result)["device_gap"]
    for quantity in ("accuracy", "loss"):
        for name in ("value", "low", "high"):
            assert found[quantity][name] == pytest.approx(
                verified[quantity][name], abs=1e-5
            )


def _changed(result, target, **changes):
    """Writes a result whose test split is changed."""
    content = json.loads(result.read_text())
    content["test"].update(changes)
    target.write_text(json.dumps(content))
    return target


def _encoded(array):
    return base64.b64encode(array.tobytes()).decode()


def test_a_device_that_errs_is_different(bundled, tmp_path):
    run_dir, _, result = bundled
    right = np.packbits(np.ones(100, bool))
    path = _changed(result, tmp_path / "x.json", correct=_encoded(right))
    record = comparison.compare(run_dir, path, margin=0.5)
    assert record["verdict"] == "different"
    assert record["test"]["accuracy"] == 100.0
    mcnemar = record["test"]["mcnemar"]
    wrong = round(100 - _accuracy(run_dir))
    assert mcnemar["only_theirs"] == 0 < mcnemar["only_ours"] == wrong
    assert record["difference"]["accuracy"]["value"] < -wrong + 5


def _accuracy(run_dir):
    """Returns the accuracy of the trained model on the test set."""
    test = data.load(RunDirectory(run_dir).config.dataset).test.batch(50)
    return evaluate(predictor(training.load_model(run_dir)), test).accuracy


@pytest.fixture(scope="module")
def few(workdir, tmp_path_factory):
    """A run, and its bundle of few examples."""
    scratch = tmp_path_factory.mktemp("few")
    run_dir = _copy(workdir, "w2a8", scratch)
    bundling.bundle(run_dir, scratch / "out", num_examples=COUNT)
    return run_dir, scratch / "out"


def test_few_examples_cannot_tell(few, tmp_path):
    run_dir, folder = few
    result = _run(folder)
    flipped = np.array(_bits(result))
    flipped[:1] ^= True
    path = _changed(
        result, tmp_path / "x.json", correct=_encoded(np.packbits(flipped))
    )
    record = comparison.compare(run_dir, path, margin=1.0)
    assert record["test"]["agreement"]["num_examples"] == COUNT
    assert record["verdict"] == "cannot tell"


def _bits(result):
    content = json.loads(result.read_text())["test"]
    packed = np.frombuffer(base64.b64decode(content["correct"]), np.uint8)
    return np.unpackbits(packed)[: content["num_examples"]].astype(bool)


def test_the_first_examples_are_taken(few, bundled):
    for split in ("train", "test"):
        with (
            np.load(few[1] / f"{split}.npz") as some,
            np.load(bundled[1] / f"{split}.npz") as every,
        ):
            for name in ("images", "labels", "outputs"):
                assert len(some[name]) == COUNT < len(every[name])
                np.testing.assert_array_equal(some[name], every[name][:COUNT])


@pytest.mark.parametrize(
    ("label", "storage"),
    [("w2a8", "int4"), ("w2a8", "int2"), ("float", "int8")],
)
def test_each_storage_runs(workdir, tmp_path, label, storage):
    run_dir = _copy(workdir, label, tmp_path)
    bundling.bundle(
        run_dir, tmp_path / "out", storage=storage, num_examples=COUNT
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["expand_low_bits"] == (storage == "int2")
    record = comparison.compare(run_dir, _run(tmp_path / "out"), margin=30.0)
    assert record["verdict"] == "same"
    assert record["storage"] == storage
    assert record["is_float"] == (label == "float")
    for split in ("train", "test"):
        found = record[split]["agreement"]
        assert found["different_outputs"] == found["max_steps"] == 0


def test_the_file_in_the_bundle_is_that_of_the_run(bundled):
    run_dir, folder, _ = bundled
    exported = run_dir / exporting.MODEL_FILE
    assert (folder / "model.tflite").read_bytes() == exported.read_bytes()


def test_a_bundle_is_made_again_where_it_is(bundled):
    run_dir, folder, _ = bundled
    before = (folder / "manifest.json").stat().st_mtime_ns
    bundling.bundle(run_dir, folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(errors.ExportError, match="with another content"):
        bundling.bundle(run_dir, folder, num_examples=COUNT)


def test_the_result_of_another_run_is_refused(few, bundled):
    with pytest.raises(errors.ExportError, match="was not made of"):
        comparison.compare(few[0], bundled[2])


def test_a_result_of_other_examples_is_refused(bundled, tmp_path):
    run_dir, _, result = bundled
    path = _changed(
        result,
        tmp_path / "x.json",
        num_examples=8,
        losses=_encoded(np.ones(8, "<f4")),
        correct=_encoded(np.ones(1, np.uint8)),
        different_outputs=0,
        same_class=8,
    )
    with pytest.raises(errors.ExportError, match="has 8 examples where"):
        comparison.compare(run_dir, path)


def _compressed():
    file = io.BytesIO()
    np.savez_compressed(file, trained_train_losses=np.zeros(10**7))
    return file.getvalue()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None, _compressed()])
def test_damaged_evaluations_are_refused(bundled, tmp_path, damage):
    run_dir, _, result = bundled
    copy = shutil.copytree(run_dir, tmp_path / run_dir.name)
    (path,) = copy.glob("export/bundles/*/evaluations.npz")
    path.write_bytes(damage) if damage is not None else path.unlink()
    with pytest.raises(errors.RunDirectoryError, match="evaluations.npz is"):
        comparison.compare(copy, result)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_is_positive(bundled, margin):
    with pytest.raises(errors.ConfigError, match="margin is"):
        comparison.compare(bundled[0], bundled[2], margin=margin)


@pytest.mark.parametrize("count", [-1, 101])
def test_a_bundle_of_more_examples_than_there_are(bundled, tmp_path, count):
    with pytest.raises(errors.ConfigError, match=f"num_examples is {count}"):
        bundling.bundle(bundled[0], tmp_path / "out", num_examples=count)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_needs_a_trained_run(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())
    with pytest.raises(errors.RunDirectoryError, match="not trained"):
        bundling.bundle(run.path, tmp_path / "out")


@pytest.mark.slow
def test_a_bundle_runs_where_little_is_installed(bundled, tmp_path):
    """In an environment with numpy and ai-edge-litert, and nothing else."""
    run_dir, folder, _ = bundled
    packages = [
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("numpy", "ai-edge-litert")
    ]
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *packages],
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, (
        f"{packages} cannot be installed, for which pip needs its index or a "
        f"cache: {installed.stderr}"
    )
    with tarfile.open(folder.with_name("out.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    code = (
        "import importlib.util as u; print([name for name in "
        "('tensorflow', 'tf_keras', 'scipy', 'qgen_tf', 'export') "
        "if u.find_spec(name)])"
    )
    found = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
    done = subprocess.run(
        [python, "-I", tmp_path / "out" / "run_on_device.py"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = tmp_path / "out" / "device_result.json"
    record = comparison.compare(run_dir, result, margin=30.0)
    assert record["verdict"] == "same"
    for split in ("train", "test"):
        assert record[split]["agreement"]["different_outputs"] == 0
