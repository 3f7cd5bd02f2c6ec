import ast
import base64
import errno
import io
import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
from ai_edge_litert import schema_py_generated as schema

from export import run_on_device
from export.model_file import parse
from export.weights import expand, read_weights
from tests import imports
from tests.export import bundles

SCRIPT = pathlib.Path(run_on_device.__file__)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "out"
    return folder, bundles.write(folder)


@pytest.fixture
def folder(tmp_path):
    """A bundle to be changed."""
    bundles.write(tmp_path / "out")
    return tmp_path / "out"


def _start(folder, *arguments, before="pass"):
    """Runs the program without this environment's variables and folders."""
    script = str(folder / "run_on_device.py")
    code = (
        f"import runpy, sys; sys.argv = {[script, *arguments]}; {before}; "
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=folder.parent,
        env={},
        capture_output=True,
        text=True,
        timeout=120,
    )


def _assert_one_sentence(result, *parts):
    assert result.returncode == 2, result.stderr
    lines = [x for x in result.stderr.splitlines() if "INFO:" not in x]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_it_is_python_3_9_and_needs_little():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    used = imports.imported(SCRIPT, imports.modules())
    assert used - {"numpy", "ai_edge_litert"} <= sys.stdlib_module_names
    assert used >= {"numpy", "ai_edge_litert"}


def test_the_program_gives_what_was_recorded(written):
    folder, bundle = written
    done = _start(folder, "--threads=1", "--num_latency_runs=3")
    assert done.returncode == 0, done.stderr
    assert "train 70 of 70 examples\n" in done.stdout
    result = json.loads((folder / "device_result.json").read_text())
    assert result["bundle"] == bundle.identity
    assert result["num_threads"] == 1 and result["kernels"] == "xnnpack"
    for split, recorded in bundle.manifest["recorded"].items():
        found = result[split]
        assert found["different_outputs"] == found["max_steps"] == 0
        assert found["same_class"] == bundles.COUNTS[split]
        assert {name: found[name] for name in recorded} == recorded
        evaluation = bundle.evaluations[split]
        losses = np.frombuffer(base64.b64decode(found["losses"]), "<f4")
        np.testing.assert_array_equal(losses, evaluation.losses)
        bits = np.frombuffer(base64.b64decode(found["correct"]), np.uint8)
        correct = np.unpackbits(bits, count=len(losses))
        np.testing.assert_array_equal(correct, evaluation.correct)
    assert result["gap"] == bundle.manifest["gap"]
    assert f"{result['gap']['accuracy']:12.4f}" * 2 in done.stdout
    assert result["machine"]["numpy"] == np.__version__
    # numpy and the runtime need some 40 MB, TensorFlow would need 300
    assert 20 < result["peak_memory_mb"] < 200
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p90"]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_teaches():
    done = _start(SCRIPT.parent, "--help")
    assert done.returncode == 0
    for part in ("pip install numpy ai-edge-litert", "--threads", "--kernels"):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("module", ["numpy", "ai_edge_litert"])
def test_what_is_missing_is_named(written, module):
    done = _start(written[0], before=f"sys.modules[{module!r}] = None")
    _assert_one_sentence(done, "pip install numpy ai-edge-litert")


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [("--threads=0", "0 is not 1 or more"), ("--kernels=fast", "invalid")],
)
def test_a_wrong_flag_is_refused(argument, complaint):
    done = _start(SCRIPT.parent, argument)
    assert done.returncode == 2 and complaint in done.stderr


def test_a_program_without_its_bundle_says_so(tmp_path):
    (tmp_path / "run_on_device.py").write_bytes(SCRIPT.read_bytes())
    _assert_one_sentence(_start(tmp_path), "manifest.json is missing")


def test_batches_do_not_matter(written):
    results = [
        bundles.run(written[0], batch_size=batch_size)
        for batch_size in (1, 64, 100)
    ]
    for split in bundles.COUNTS:
        assert results[0][split] == results[1][split] == results[2][split]


def _arrays(folder, split):
    with np.load(folder / f"{split}.npz") as arrays:
        return dict(arrays)


def _replace(folder, split, **arrays):
    """Changes arrays of a split and the manifest."""
    file = io.BytesIO()
    np.savez(file, **{**_arrays(folder, split), **arrays})
    bundles.change(folder, f"{split}.npz", file.getvalue())


def test_other_outputs_are_counted_in_steps(folder):
    outputs = _arrays(folder, "train")["outputs"].astype(int)
    down = np.where(outputs < 0, 3, -3)  # towards 0, where int8 has room
    outputs[5, 2] += down[5, 2]
    outputs[6, 1] += np.sign(down[6, 1])
    outputs[69] = np.roll(outputs[69], 1)  # another class
    _replace(folder, "train", outputs=outputs.astype(np.int8))
    found = bundles.run(folder)["train"]
    rolled = np.abs(outputs[69] - np.roll(outputs[69], -1)).max()
    assert found["different_outputs"] == 3
    assert found["max_steps"] == max(rolled, 3)
    classes = outputs.argmax(axis=1)
    original = _original_classes(folder.parent)
    assert found["same_class"] == (classes == original).sum() < 70


def _original_classes(scratch):
    bundles.write(scratch / "original")
    return _arrays(scratch / "original", "train")["outputs"].argmax(axis=1)


def test_float_outputs_differ_in_logits(tmp_path):
    folder = tmp_path / "out"
    bundles.write(folder, bundles.content(bits=32))
    outputs = _arrays(folder, "test")["outputs"]
    outputs[3, 0] += 0.25
    _replace(folder, "test", outputs=outputs)
    result = bundles.run(folder)
    assert result["test"]["different_outputs"] == 1
    assert result["test"]["max_steps"] == pytest.approx(0.25, rel=1e-4)
    text = run_on_device.report(
        run_on_device.read_manifest(str(folder)), result
    )
    assert "by 0.25 logits at most" in text


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_other_kernels_round_otherwise(written, kernels):
    found = bundles.run(written[0], kernels=kernels)["test"]
    assert 0 < found["different_outputs"] <= bundles.COUNTS["test"]
    assert 1 <= found["max_steps"] < 10


def test_cross_entropy():
    np.testing.assert_allclose(
        run_on_device.cross_entropy(
            np.float32([[0.0, 0.0], [1e4, 0.0]]), np.array([1, 1])
        ),
        [np.log(2.0), 1e4],
    )
    logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    labels = np.arange(50) % 7
    expected = -scipy.special.log_softmax(logits.astype(float), axis=1)
    np.testing.assert_allclose(
        run_on_device.cross_entropy(logits, labels),
        expected[np.arange(50), labels],
        rtol=1e-6,
    )
    with pytest.raises(run_on_device.BundleError, match="not finite"):
        run_on_device.cross_entropy(np.float32([[np.nan, 0.0]]), np.array([0]))


def test_latency_leaves_the_warm_up_out(monkeypatch):
    durations = [*[9.0] * 10, *(0.001 * n for n in range(11))]
    ticks = itertools.chain.from_iterable((0.0, d) for d in durations)
    monkeypatch.setattr(run_on_device.time, "perf_counter", lambda: next(ticks))
    calls = []

    class Model:
        def outputs(self, image):
            calls.append(image)

    found = run_on_device.latency(Model(), "image", 11)
    assert len(calls) == 21
    assert found == {
        "p50": pytest.approx(5.0),
        "p90": pytest.approx(9.0),
        "num_runs": 11,
    }


def test_low_bits_are_unpacked_from_the_lowest():
    for num_bits, byte, values in (
        (4, 0xF8, [-8, -1]),
        (2, 0b11_10_01_00, [0, 1, -2, -1]),
    ):
        data = np.array([byte, 0xFF], np.uint8)
        found = run_on_device._unpacked(data, num_bits, len(values) + 1)
        np.testing.assert_array_equal(found.view(np.int8), [*values, -1])


@pytest.mark.parametrize("storage", ["int4", "int2"])
def test_weights_of_low_bits_are_expanded(storage, tmp_path):
    content = bundles.content(bits=2, storage=storage)
    before = read_weights(parse(content))
    assert {"int4": 4, "int2": 2}[storage] in {w.num_bits for w in before}
    expanded = run_on_device.expand_low_bits(content)
    for ours, packed, theirs in zip(
        read_weights(parse(expanded)),
        before,
        read_weights(parse(expand(content))),
        strict=True,
    ):
        assert ours.num_bits == theirs.num_bits == 8
        np.testing.assert_array_equal(ours.values, packed.values)
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.scales, packed.scales)
    low = {schema.TensorType.INT4, schema.TensorType.INT2}
    assert not low & {t.type for t in parse(expanded).subgraphs[0].tensors}
    folder = tmp_path / "out"
    bundles.write(folder, content, expand_low_bits=True)
    plain = tmp_path / "plain"
    bundles.write(plain, bundles.content(bits=2))
    np.testing.assert_array_equal(
        _arrays(folder, "test")["outputs"], _arrays(plain, "test")["outputs"]
    )
    assert bundles.run(folder)["test"]["different_outputs"] == 0


def _npy(array, save=np.savez):
    file = io.BytesIO()
    save(file, images=array, labels=array, outputs=array)
    return file.getvalue()


DAMAGES = {
    "truncated": (
        lambda f: bundles.change(
            f, "test.npz", (f / "test.npz").read_bytes()[:900]
        ),
        "test.npz is damaged",
    ),
    "no zip": (
        lambda f: bundles.change(f, "test.npz", b"images"),
        "test.npz is damaged",
    ),
    "objects": (
        lambda f: bundles.change(f, "test.npz", _npy(np.array([{}, {}]))),
        "an array is not of numbers",
    ),
    "grows as it is read": (
        lambda f: bundles.change(
            f, "test.npz", _npy(np.zeros(10**7), np.savez_compressed)
        ),
        "images.npy is compressed",
    ),
    "no examples": (
        lambda f: _replace(
            f,
            "test",
            **{name: a[:0] for name, a in _arrays(f, "test").items()},
        ),
        "not of one length",
    ),
    "fewer labels": (
        lambda f: _replace(f, "test", labels=np.zeros(3, np.int32)),
        "not of one length",
    ),
    "fewer examples": (
        lambda f: _replace(
            f,
            "test",
            **{name: a[:5] for name, a in _arrays(f, "test").items()},
        ),
        "does not hold 41 examples",
    ),
    "another shape": (
        lambda f: _replace(f, "test", images=np.zeros((41, 9, 9, 1), np.uint8)),
        "the model takes uint8 (8, 8, 1)",
    ),
    "another type": (
        lambda f: _replace(
            f, "test", images=np.zeros((41, 8, 8, 1), np.float32)
        ),
        "the images are float32",
    ),
    "a label too high": (
        lambda f: _replace(f, "test", labels=np.full(41, 10, np.int32)),
        "not of a model of 10 classes",
    ),
    "fewer classes": (
        lambda f: _replace(f, "test", outputs=np.zeros((41, 9), np.int8)),
        "not of a model of 10 classes",
    ),
    "no model": (
        lambda f: bundles.change(f, "model.tflite", b"no model"),
        "cannot run the model",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_forged_bundle_is_refused(folder, damage):
    do, message = DAMAGES[damage]
    do(folder)
    with pytest.raises(run_on_device.BundleError) as caught:
        bundles.run(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_input_writes_nothing(folder):
    (folder / "test.npz").write_bytes(b"")
    before = sorted(folder.iterdir())
    _assert_one_sentence(_start(folder), "test.npz is not as the manifest")
    assert sorted(folder.iterdir()) == before


def test_a_result_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "device_result.json"
    run_on_device.write_result(str(path), {"gap": 1.0})
    before = path.read_bytes()
    assert json.loads(before) == {"gap": 1.0}

    def fail(content, file, **_):
        file.write("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_on_device.json, "dump", fail)
    with pytest.raises(run_on_device.BundleError, match="No space left"):
        run_on_device.write_result(str(path), {"gap": 2.0})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    missing = str(tmp_path / "missing" / "result.json")
    with pytest.raises(run_on_device.BundleError, match="cannot write"):
        run_on_device.write_result(missing, {})
