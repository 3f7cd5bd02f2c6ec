"""Measures of a run, and of the weights in its file."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from export.model_file import pack, parse
from qgen_tf import errors, measures
from qgen_tf.study import exporting, measuring
from qgen_tf.training import RunDirectory
from tests import tiny

pytestmark = pytest.mark.slow
_NAMES = (
    "average_sharpness",
    "hessian_trace",
    "sam_sharpness",
    "distance_from_initialization",
    "path_norm",
    "margin_percentile",
)


def _settings(*names, **fields):
    settings = tiny.config().measures
    settings.names = names or _NAMES
    settings.update(fields)
    return settings


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny.copies(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module", params=[0, 1], ids=["float", "w4a8"])
def run(request, runs):
    return runs[request.param]


def _changed(run, target):
    """Writes the file of a run with one weight changed, and returns it."""
    model = parse((run.path / exporting.MODEL_FILE).read_bytes())
    graph = model.subgraphs[0]
    weight = graph.tensors[graph.operators[0].inputs[1]]
    data = np.array(model.buffers[weight.buffer].data)
    if run.label == "float":
        data.view(np.float32)[0] += 0.5
    else:
        levels = data.view(np.int8)
        levels[0] += 20 if levels[0] < 0 else -20
    model.buffers[weight.buffer].data = data
    target.write_bytes(pack(model))
    return target


def test_the_file_of_a_run_measures_as_the_run(run):
    file = run.path / exporting.MODEL_FILE
    before = (run.path / measuring.MEASURES_FILE).read_bytes()
    of_file = measuring.measure(run.path, _settings(), tflite=file)
    assert of_file["source"] == {
        "file": "model.tflite",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert (run.path / measuring.MEASURES_FILE).read_bytes() == before
    assert run.read_json("measures-model.json") == of_file
    of_run = measuring.measure(run.path, _settings())
    assert list(of_file["measures"]) == list(_NAMES)
    for name in _NAMES:
        assert of_file["measures"][name] == of_run["measures"][name]
    assert of_file["noise"] == of_run["noise"]
    assert bool(of_file["noise"]) == (run.label != "float")
    for split in ("train", "test"):
        assert of_file[split]["loss"] == pytest.approx(
            of_run[split]["loss"], rel=0.02
        )


def test_what_is_in_the_file_is_measured(run, tmp_path):
    file = _changed(run, tmp_path / "changed.tflite")
    names = ("parameter_norm", "average_sharpness")
    of_file = measuring.measure(run.path, _settings(*names), tflite=file)
    of_run = measuring.measure(run.path, _settings(*names))
    for name in names:
        one, other = (r["measures"][name] for r in (of_file, of_run))
        assert one["value"] != other["value"]
    assert of_file["test"]["loss"] != of_run["test"]["loss"]
    rows = [r["noise"][:1] for r in (of_file, of_run)]
    assert run.label == "float" or rows[0] != rows[1]
    # nothing of it is in the record of the run, nor taken again
    assert (run.path / "measures-changed.json").exists()
    time = (run.path / "measures-changed.json").stat().st_mtime_ns
    again = measuring.measure(run.path, _settings(*names), tflite=file)
    assert again == of_file
    assert (run.path / "measures-changed.json").stat().st_mtime_ns == time


def test_another_file_of_that_name_is_measured_anew(run, tmp_path):
    target = tmp_path / "twice.tflite"
    shutil.copy(run.path / exporting.MODEL_FILE, target)
    settings = _settings("parameter_norm")
    first = measuring.measure(run.path, settings, tflite=target)
    second = measuring.measure(run.path, settings, tflite=_changed(run, target))
    assert first["source"]["file"] == second["source"]["file"]
    assert first["source"]["sha256"] != second["source"]["sha256"]
    assert first["measures"] != second["measures"]


def test_rounding_a_file(runs):
    settings = _settings(measuring.LOSS_RISES)
    rises = [
        measuring.measure(
            run.path, settings, tflite=run.path / exporting.MODEL_FILE
        ).get("rises", [])
        for run in runs
    ]
    assert [rise["num_bits"] for rise in rises[0]] == [8, 6, 4, 3, 2]
    assert rises[1] == []
    settings = _settings("regularization_gauss_newton")
    settings.regularization_gauss_newton = {"num_bits": 4}
    with pytest.raises(errors.ModelError, match="on its grids already"):
        measuring.measure(
            runs[1].path, settings, tflite=runs[1].path / exporting.MODEL_FILE
        )


def test_files_that_cannot_be_measured(runs, tmp_path):
    floats, integers = (run.path / exporting.MODEL_FILE for run in runs)
    with pytest.raises(errors.ConfigError, match="no latent weights"):
        measuring.measure(
            runs[1].path, _settings(point="latent"), tflite=integers
        )
    with pytest.raises(errors.ExportError, match=r"cannot read .*gone.tflite"):
        measuring.measure(
            runs[1].path, _settings(), tflite=tmp_path / "gone.tflite"
        )
    for run, file in ((runs[0], integers), (runs[1], floats)):
        with pytest.raises(errors.ExportError, match="does not fit the run"):
            measuring.measure(run.path, _settings(), tflite=file)
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(errors.ExportError, match="not a TensorFlow Lite file"):
        measuring.measure(
            runs[1].path, _settings(), tflite=tmp_path / "text.tflite"
        )
    assert not (runs[1].path / "measures-text.json").exists()


def test_rises_that_cannot_be_found_are_recorded(runs, tmp_path, monkeypatch):
    run = RunDirectory(shutil.copytree(runs[0].path, tmp_path / "run"))

    def fail(*args, **kwargs):
        raise errors.ModelError("the loss is not finite.")

    monkeypatch.setattr(measures, "loss_rises", fail)
    monkeypatch.setattr(measures, "MEASURES", {})
    record = measuring.measure(run.path, _settings(measuring.ALL))
    assert record["failed"] == {"loss_rises": "the loss is not finite."}
    assert "rises" not in record
    assert measuring.is_measured(run.path, _settings(measuring.ALL))
    with pytest.raises(errors.ModelError, match="not finite"):
        run.path.joinpath(measuring.MEASURES_FILE).unlink()
        measuring.measure(run.path, _settings(measuring.LOSS_RISES))


def test_measuring_with_other_settings_measures_again(runs):
    settings = tiny.config().measures
    first = measuring.measure(runs[0].path, settings)
    settings.average_sharpness.sigma = 0.2
    second = measuring.measure(runs[0].path, settings)
    sharpness = "average_sharpness"
    assert second["measures"][sharpness]["settings"]["sigma"] == 0.2
    assert (
        second["measures"][sharpness]["value"]
        != first["measures"][sharpness]["value"]
    )
    assert second["gap"] == first["gap"]
    assert measuring.measure(runs[0].path, tiny.config().measures) == first


def test_what_rounding_costs_is_found_of_the_float_run(runs, tmp_path):
    settings = tiny.config().measures
    settings.names = (*settings.names, measuring.LOSS_RISES)
    for run, bits in zip(runs, ([8, 6, 4, 3, 2], []), strict=True):
        copy = shutil.copytree(run.path, tmp_path / run.path.name)
        record = measuring.measure(copy, settings)
        rises = record.get("rises", [])
        assert [rise["num_bits"] for rise in rises] == bits
        assert measuring.is_measured(copy, settings)


def test_measures_of_rounding_are_not_of_a_float_run(runs, tmp_path):
    settings = tiny.config().measures
    settings.names = ("regularization_gauss_newton",)
    for run, has_one in zip(runs, (False, True), strict=True):
        copy = shutil.copytree(run.path, tmp_path / run.path.name)
        record = measuring.measure(copy, settings)
        name = settings.names[0]
        assert (name in record["measures"]) == has_one
        assert (name in record["failed"]) != has_one
        assert measuring.is_measured(copy, settings)


def test_an_unknown_measure_is_refused(runs):
    settings = tiny.config().measures
    settings.names = ("beauty",)
    with pytest.raises(errors.ConfigError, match="'beauty' is unknown"):
        measuring.measure(runs[0].path, settings)


def test_measures_are_json(runs):
    text = (runs[1].path / measuring.MEASURES_FILE).read_text()
    assert "NaN" not in text and json.loads(text)["noise"]
