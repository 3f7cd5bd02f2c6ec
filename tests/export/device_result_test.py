import base64
import copy
import json

import numpy as np
import pytest

from export import device_result, run_on_device
from qgen_tf import errors
from tests.export import bundles


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "out"
    bundle = bundles.write(folder)
    return bundle, bundles.run(folder)


def _read(tmp_path, content):
    path = tmp_path / "device_result.json"
    path.write_text(json.dumps(content))
    return device_result.read(path)


def test_a_result_comes_back_as_it_was(written, tmp_path):
    bundle, content = written
    result = _read(tmp_path, content)
    assert result.bundle == bundle.identity
    assert result.kernels == "xnnpack" and result.num_threads == 1
    assert result.latency_ms == content["latency_ms"]
    assert result.peak_memory_mb == content["peak_memory_mb"]
    assert result.machine == content["machine"]
    for index, split in enumerate(run_on_device.SPLITS):
        expected = bundle.evaluations[split]
        found = result.evaluations[index]
        np.testing.assert_array_equal(found.losses, expected.losses)
        np.testing.assert_array_equal(found.correct, expected.correct)
        assert found.correct.dtype == bool
        assert result.agreements[index] == device_result.SplitAgreement(
            num_examples=bundles.COUNTS[split],
            different_outputs=0,
            max_steps=0,
            same_class=100.0,
        )


def test_memory_may_be_unknown(written, tmp_path):
    content = {**written[1], "peak_memory_mb": None}
    assert _read(tmp_path, content).peak_memory_mb is None


def _losses(*values):
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


WRONG = {
    "format": "another",
    "bundle": "../../etc",
    "kernels": "fast",
    "num_threads": "two",
    "machine": [1],
    "latency_ms": {"p50": float("nan"), "p90": 1.0, "num_runs": 3},
    "peak_memory_mb": -1,
    "train": None,
    "train losses": "not base64!",
    "train correct": "AA==",
    "train num_examples": 71,
    "train different_outputs": 71,
    "train max_steps": float("inf"),
    "train same_class": True,
    "test losses": _losses(*[0.5] * 40, np.nan),
    "test num_examples": -1,
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_field_is_refused(written, tmp_path, field):
    content = copy.deepcopy(written[1])
    *parents, name = field.split()
    part = content
    for parent in parents:
        part = part[parent]
    assert part[name] != WRONG[field]
    part[name] = WRONG[field]
    with pytest.raises(errors.ExportError) as caught:
        _read(tmp_path, content)
    assert "is not a device's result" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_examples_are_refused(written, tmp_path):
    empty = {"num_examples": 0, "losses": "", "correct": ""}
    counts = {"different_outputs": 0, "same_class": 0}
    content = {**written[1], "train": {"max_steps": 0, **empty, **counts}}
    with pytest.raises(errors.ExportError, match="does not hold 0 losses"):
        _read(tmp_path, content)


@pytest.mark.parametrize("field", ["format", "machine", "test", "bundle"])
def test_a_missing_field_is_named(written, tmp_path, field):
    content = {**written[1]}
    del content[field]
    with pytest.raises(errors.ExportError, match=f"KeyError: '{field}'"):
        _read(tmp_path, content)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"x"', "{}", "\0", "[" * 100_000]
)
def test_what_is_no_result_is_refused(tmp_path, text):
    path = tmp_path / "device_result.json"
    path.write_text(text)
    with pytest.raises(errors.ExportError, match="is not a device's result"):
        device_result.read(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "device_result.json"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(errors.ExportError, match="is not a device's result"):
        device_result.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.ExportError, match="absent.json: No such file"):
        device_result.read(tmp_path / "absent.json")
