import errno
import json
import os
import tarfile
import tracemalloc
import types

import numpy as np
import pytest
import tensorflow as tf

from export import bundle, run_on_device
from export.interpreter import Interpreter
from qgen_tf import errors
from qgen_tf.measures import evaluate
from tests.export import bundles

FILES = {
    *("README.txt", "manifest.json", "model.tflite", "run_on_device.py"),
    *("test.npz", "train.npz"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "out"
    return folder, bundles.write(folder)


@pytest.fixture
def folder(tmp_path):
    """A bundle to be damaged."""
    bundles.write(tmp_path / "out")
    return tmp_path / "out"


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_holds_what_the_file_takes_and_gives(written):
    folder, _ = written
    assert {path.name for path in folder.iterdir()} == FILES
    content = bundles.content()
    assert (folder / "model.tflite").read_bytes() == content
    interpreter = Interpreter(content)
    step = interpreter.output_step_size
    model = run_on_device.Model(
        content, batch_size=1, num_threads=1, kernels="xnnpack"
    )
    scale, zero_point = model.input["quantization"]
    for split in bundles.COUNTS:
        images, labels = bundles.examples(split)
        with np.load(folder / f"{split}.npz", allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["labels"], labels)
            stored, outputs = arrays["images"], arrays["outputs"]
        assert stored.dtype == np.uint8 and stored.shape == images.shape
        # the digits are on a grid of 17 levels: none is cut off
        levels = stored.astype(np.float64) - 128 - zero_point
        assert np.abs(levels * scale - images).max() <= 0.501 * scale
        assert outputs.dtype == np.int8
        _, zero = model.output["quantization"]
        np.testing.assert_allclose(
            (outputs.astype(np.float64) - zero) * step,
            interpreter.predict(images),
            rtol=1e-6,
        )


def test_what_is_recorded_is_what_the_file_does(written):
    folder, result = written
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == result.manifest and manifest["run"] == "tiny"
    predict = Interpreter(bundles.content()).predict
    found = {}
    for split, dataset in bundles.splits().items():
        found[split] = evaluate(predict, dataset.batch(16))
        evaluation = result.evaluations[split]
        np.testing.assert_allclose(
            evaluation.losses, found[split].losses, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(evaluation.correct, found[split].correct)
        recorded = manifest["recorded"][split]
        assert recorded["num_examples"] == bundles.COUNTS[split]
        assert recorded["accuracy"] == found[split].accuracy
        assert recorded["loss"] == pytest.approx(found[split].loss, rel=1e-5)
    assert manifest["gap"]["accuracy"] == pytest.approx(
        found["train"].accuracy - found["test"].accuracy
    )
    assert manifest["gap"]["loss"] == pytest.approx(
        found["train"].loss - found["test"].loss, abs=1e-5
    )


def test_images_of_a_float_file_are_floats(tmp_path):
    result = bundles.write(tmp_path / "out", bundles.content(bits=32))
    assert result.manifest["is_float"]
    with np.load(tmp_path / "out" / "test.npz") as arrays:
        images, _ = bundles.examples("test")
        np.testing.assert_array_equal(arrays["images"], images)
        assert arrays["images"].dtype == np.float32
        logits = bundles.network(32).model(images).numpy()
        np.testing.assert_allclose(arrays["outputs"], logits, atol=1e-4)


def test_the_same_content_gives_the_same_bytes(written, tmp_path):
    folder, result = written
    again = bundles.write(tmp_path / "out")
    assert again.identity == result.identity
    assert _contents(tmp_path / "out") == _contents(folder)
    assert again.archive.read_bytes() == result.archive.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out",
        "out.tar.gz",
    ]


def test_the_archive_is_the_folder(written, tmp_path):
    folder, result = written
    with tarfile.open(result.archive) as archive:
        entries = archive.getmembers()
        archive.extractall(tmp_path, filter="data")
    assert {(entry.mtime, entry.uid, entry.mode) for entry in entries} == {
        (0, 0, 0o644)
    }
    assert _contents(tmp_path / "out") == _contents(folder)


def test_what_is_the_same_may_be_there(folder):
    (folder / "device_result.json").write_text("{}")
    before = _contents(folder)
    bundles.write(folder)
    assert _contents(folder) == before


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "out").mkdir()
    bundles.write(tmp_path / "out")
    assert set(_contents(tmp_path / "out")) == FILES


def test_another_bundle_is_not_overwritten(folder):
    before = _contents(folder)
    archive = folder.with_name("out.tar.gz")
    packed = archive.read_bytes()
    with pytest.raises(errors.ExportError, match="with another content"):
        bundles.write(folder, facts={"run": "other"})
    assert _contents(folder) == before and archive.read_bytes() == packed


def test_of_two_at_once_one_is_told(tmp_path, monkeypatch):
    is_there, seen = bundle._is_there, []

    def and_then_the_other_comes(new, target):
        seen.append(is_there(new, target))
        if len(seen) == 2:  # folder and archive were free
            bundles.write(tmp_path / "out", facts={"run": "other"})
        return seen[-1]

    monkeypatch.setattr(bundle, "_is_there", and_then_the_other_comes)
    with pytest.raises(errors.ExportError, match="with another content"):
        bundles.write(tmp_path / "out")
    assert seen == [False] * len(seen)
    manifest = bundle.read_manifest(tmp_path / "out")
    assert manifest["run"] == "other"


def test_a_damaged_bundle_does_not_count_as_the_same(folder):
    (folder / "test.npz").write_bytes(b"")
    with pytest.raises(errors.ExportError, match="with another content"):
        bundles.write(folder)


@pytest.mark.parametrize("name", ["out", "out.tar.gz"])
def test_what_is_no_bundle_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(errors.ExportError, match=f"{name} is there"):
        bundles.write(tmp_path / "out")
    assert _contents(tmp_path) == {name: b"mine"}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.ExportError, match="choose another folder"):
        bundles.write(tmp_path / "file" / "out")


def test_nothing_is_left_when_the_disk_is_full(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle.tarfile.TarFile, "addfile", fail)
    with pytest.raises(errors.ExportError, match="No space left"):
        bundles.write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [lambda some: some.take(0), lambda some: some.repeat()]
)
def test_examples_must_be_of_known_number(tmp_path, change):
    splits = bundles.splits()
    splits["test"] = change(splits["test"])
    with pytest.raises(errors.DataError, match="none or of unknown number"):
        bundle.write(tmp_path / "out", bundles.content(), splits, facts={})
    assert list(tmp_path.iterdir()) == []


def test_images_are_streamed(tmp_path):
    shape = (64, 64, 3)
    model = types.SimpleNamespace(
        is_float=False,
        input={"quantization": (1.0, -128)},
        outputs=lambda images: np.zeros((len(images), 4), np.int8),
        logits=np.float32,
    )
    peaks = {}
    for count in (128, 128, 512):  # the first time, modules are loaded
        dataset = tf.data.Dataset.range(count).map(
            lambda i: (tf.fill(shape, tf.cast(i % 200, tf.float32)), 1)
        )
        path = tmp_path / "train.npz"
        tracemalloc.start()
        found = bundle._write_examples(path, dataset, model)
        _, peaks[count] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found.losses) == count and not found.correct.any()
    assert peaks[512] < 1.1 * peaks[128]
    with np.load(path) as arrays:
        images = arrays["images"]
    assert images.shape == (512, *shape)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(512) % 200)


def _list(folder, name):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = manifest["files"]["README.txt"]
    path.write_text(json.dumps(manifest))


def _flip(folder):
    path = folder / "model.tflite"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _link(folder):
    (folder / "test.npz").rename(folder.parent / "elsewhere.npz")
    (folder / "test.npz").symlink_to(folder.parent / "elsewhere.npz")


def _link_manifest(folder):
    (folder / "manifest.json").rename(folder / "other.json")
    (folder / "manifest.json").symlink_to("other.json")


def _without(folder, field):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[field]
    path.write_text(json.dumps(manifest))


DAMAGES = {
    "missing file": (lambda f: (f / "test.npz").unlink(), "is missing"),
    "missing manifest": (
        lambda f: (f / "manifest.json").unlink(),
        "manifest.json is missing",
    ),
    "flipped bit": (_flip, "model.tflite is not as the manifest has it"),
    "longer file": (
        lambda f: (f / "README.txt").write_text("longer" * 99),
        "README.txt is not as the manifest has it",
    ),
    "link": (_link, "test.npz is a link"),
    "linked manifest": (_link_manifest, "manifest.json is a link"),
    "..": (lambda f: _list(f, "../README.txt"), "names '../README.txt'"),
    "only ..": (lambda f: _list(f, ".."), "names '..'"),
    "absolute": (lambda f: _list(f, "/etc/passwd"), "names '/etc/passwd'"),
    "folder": (lambda f: _list(f, "sub/x"), "names 'sub/x'"),
    "backslash": (lambda f: _list(f, "..\\x"), "right in the folder"),
    "no JSON": (
        lambda f: (f / "manifest.json").write_bytes(b"\xff{"),
        "damaged or of another program",
    ),
    "foreign JSON": (
        lambda f: (f / "manifest.json").write_text('{"name": "x"}'),
        "damaged or of another program",
    ),
    "a list": (
        lambda f: (f / "manifest.json").write_text("[]"),
        "damaged or of another program",
    ),
    **{
        f"without {field}": (
            lambda f, field=field: _without(f, field),
            f"KeyError: '{field}'",
        )
        for field in ("format", "files", "kernels", "is_float", "recorded")
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bundle_is_refused(folder, damage):
    assert bundle.read_manifest(folder)["run"] == "tiny"
    do, message = DAMAGES[damage]
    do(folder)
    with pytest.raises(errors.ExportError) as caught:
        bundle.read_manifest(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
