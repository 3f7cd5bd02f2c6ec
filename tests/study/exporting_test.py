"""What a run directory holds of its file: whole, once, and for its settings."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from export.interpreter import Interpreter
from export.model_file import parse
from export.weights import read_weights
from qgen_tf import errors, training
from qgen_tf.measures.equivalence import LEVEL
from qgen_tf.study import explaining, exporting, records, tables
from qgen_tf.study.exporting import Settings
from qgen_tf.study.reporting import verification_page
from qgen_tf.study.reporting.divergence_figure import divergence_figure
from qgen_tf.training import RunDirectory
from tests import tiny

_LAYERS = (("conv", 0.0, 0.0, 0.0), ("add", 2.0, 0.5, 0.25), ("top", 9, 3, 1))


@dataclasses.dataclass(frozen=True)
class _LayerDifference:
    layer: str
    max_steps: float
    mean_steps: float
    share: float


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a trained run of 4 bits, to be copied."""
    config = training.with_bits(tiny.config(epochs=1), 4, 8)
    return training.train(config, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def verified(trained, tmp_path_factory):
    """Returns a copy that is verified, and the record."""
    run = _copy(trained, tmp_path_factory.mktemp("verified"))
    return run, exporting.verify(run.path)


def _copy(run, folder):
    return RunDirectory(shutil.copytree(run.path, folder / run.path.name))


def _files(run):
    folder = run.path / "export"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_exporting_proves_and_does_not_evaluate(trained, tmp_path):
    run = _copy(trained, tmp_path)
    path = exporting.export(run.path)
    assert path == run.path / "export/model.tflite"
    before = _files(run)
    assert [*before] == ["model.tflite"]
    stamp = path.stat().st_mtime_ns
    exporting.export(run.path)
    assert path.stat().st_mtime_ns == stamp
    int4 = exporting.export(run.path, Settings(storage="int4"))
    assert int4 == run.path / "export/model-int4.tflite"
    assert int4.stat().st_size < path.stat().st_size
    assert _files(run)["model.tflite"] == before["model.tflite"]


def test_a_record_says_what_was_done(verified):
    run, record = verified
    assert record == json.loads(
        (run.path / exporting.VERIFICATION_FILE).read_text()
    )
    assert record["run"] == run.path.name
    assert record["settings"] == json.loads(
        json.dumps(dataclasses.asdict(Settings()))
    )
    assert record["train"]["num_examples"] == 200
    assert record["test"]["num_examples"] == 100
    assert record["corrupted"] is None
    assert record["test"]["max_steps_deployed"] <= 1.01
    path = run.path / exporting.MODEL_FILE
    assert record["num_bytes"] == path.stat().st_size
    assert record["verdict"] == "same"
    assert record["equivalence"]["p_value"] < LEVEL


def test_text_and_page_are_beside_the_record(verified):
    run, record = verified
    text = (run.path / "export/verification.txt").read_text()
    assert text == tables.verification_text(record) + "\n"
    for part in (
        "same gap as the trained model: same",
        "equivalent within 0.5 points: yes, p = ",
        f"train: 200 examples, accuracy {record['train']['accuracy']:.2f} %",
        "McNemar p = ",
        f"file: {record['num_bytes']} bytes, int8 weights, run by xnnpack; in "
        "float: nothing",
    ):
        assert part in text
    page = (run.path / "export/verification.html").read_text()
    assert page.count('src="data:image/svg+xml;base64,') == 1
    assert "http" not in page and "<strong>same</strong>" in page
    assert "corrupted" not in page


def test_the_same_settings_are_not_verified_again(verified, monkeypatch):
    run, record = verified
    monkeypatch.setattr(exporting, "verify_file", None)  # must not be called
    before = _files(run)
    assert exporting.is_verified(run.path)
    assert exporting.verify(run.path) == record
    assert _files(run) == before


@pytest.mark.parametrize(
    "settings",
    [
        Settings(margin=2.0),
        Settings(kernels="reference"),
        Settings(storage="int4"),
        Settings(allow_float=("x",)),
        Settings(corruption="fog", severity=1),
    ],
)
def test_other_settings_are_another_verification(verified, settings):
    run, _ = verified
    assert not exporting.is_verified(run.path, settings)


def test_names_of_files_hold_what_is_not_the_default():
    fog = Settings(
        storage="int4", kernels="reference", corruption="fog", severity=2
    )
    assert fog.model_file == "export/model-int4.tflite"
    assert fog.verification_file == (
        "export/verification-int4-reference-fog-2.json"
    )
    assert fog.divergence_file == "export/divergence-int4-reference.json"
    wide = Settings(margin=3.0, allow_float=("x",))
    assert wide.verification_file == exporting.VERIFICATION_FILE
    assert wide.model_file == exporting.MODEL_FILE


def test_another_margin_replaces_the_record(verified, tmp_path):
    run = _copy(verified[0], tmp_path)
    record = exporting.verify(run.path, Settings(margin=60.0))
    assert record["equivalence"]["margin"] == 60.0
    assert not exporting.is_verified(run.path)
    assert exporting.is_verified(run.path, Settings(margin=60.0))
    assert exporting.is_readable(run.path)
    assert record["difference"] == verified[1]["difference"]


def test_a_corrupted_gap_beside_the_clean_one(verified, tmp_path):
    run = _copy(verified[0], tmp_path)
    settings = Settings(storage="int4", corruption="gaussian_noise", severity=5)
    record = exporting.verify(run.path, settings)
    assert set(_files(run)) == {
        "model.tflite",
        "model-int4.tflite",
        *(f"verification.{suffix}" for suffix in ("json", "txt", "html")),
        *(
            f"verification-int4-gaussian_noise-5.{suffix}"
            for suffix in ("json", "txt", "html")
        ),
    }
    found = record["corrupted"]
    assert found["test"]["num_examples"] == 100
    assert found["keras_gap"]["accuracy"]["value"] == pytest.approx(
        record["train"]["trained_accuracy"] - found["test"]["trained_accuracy"]
    )
    assert found["test"]["trained_loss"] != record["test"]["trained_loss"]
    page = (run.path / settings.verification_file).with_suffix(".html")
    assert "gaussian_noise 5" in page.read_text()
    text = tables.verification_text(record)
    assert "gap to gaussian_noise 5 of the file: " in text
    assert "int4 weights" in text


def test_two_bits_are_expanded_to_be_run(trained, tmp_path):
    run = _copy(trained, tmp_path)
    record = exporting.verify(run.path, Settings(storage="int2"))
    assert record["expand_low_bits"]
    assert record["test"]["max_steps_deployed"] <= 1.01
    assert "expanded to 8 bits" in tables.verification_text(record)


@pytest.mark.parametrize(
    ("stage", "size"), [(exporting.export, 0), (exporting.verify, 3000)]
)
def test_a_truncated_file_is_an_error_that_names_it(
    verified, tmp_path, stage, size
):
    run = _copy(verified[0], tmp_path)
    path = run.path / exporting.MODEL_FILE
    path.write_bytes(path.read_bytes()[:size])
    before = _files(run)
    with pytest.raises(
        errors.ExportError, match=f"{path}: .*; delete the file"
    ):
        stage(run.path)
    assert _files(run) == before


def test_a_file_that_was_deleted_is_made_again(verified, tmp_path):
    run = _copy(verified[0], tmp_path)
    path = run.path / exporting.MODEL_FILE
    content = path.read_bytes()
    path.unlink()
    assert not exporting.is_verified(run.path)
    exporting.export(run.path)
    assert path.read_bytes() == content
    assert exporting.is_verified(run.path)


def test_a_file_with_one_other_level_is_an_error(verified, tmp_path):
    run = _copy(verified[0], tmp_path)
    path = run.path / exporting.MODEL_FILE
    content = path.read_bytes()
    kernel = next(
        weight.values
        for weight in read_weights(parse(content))
        if weight.operator == "CONV_2D"
    )
    stored = np.ascontiguousarray(kernel.transpose(3, 0, 1, 2)).tobytes()
    start = content.index(stored)
    changed = bytearray(content)
    changed[start] ^= 1
    Interpreter(bytes(changed)).predict(np.zeros((1, 8, 8, 1), np.float32))
    path.write_bytes(changed)
    with pytest.raises(errors.ExportError, match="1 of .* levels differ"):
        exporting.verify(run.path)


def test_a_write_that_fails_leaves_nothing_half_written(
    verified, tmp_path, monkeypatch
):
    run = _copy(verified[0], tmp_path)
    before = _files(run)

    def fail(record):
        raise OSError("no space left on device")

    monkeypatch.setattr(verification_page, "render", fail)
    settings = Settings(kernels="reference")
    with pytest.raises(OSError, match="no space left"):
        exporting.verify(run.path, settings)
    assert not exporting.is_verified(run.path, settings)
    assert _files(run) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(margin=0.0), "margin is 0.0"),
        (Settings(corruption="rain"), "'rain' is unknown"),
        (Settings(corruption="fog", severity=0), "severity is 0"),
        (Settings(corruption="fog", severity=6), "severity is 6"),
    ],
)
def test_settings_are_checked_first(verified, settings, message):
    run, _ = verified
    before = _files(run)
    with pytest.raises(errors.ConfigError, match=message):
        exporting.verify(run.path, settings)
    assert _files(run) == before


def test_unknown_storage_and_kernels(trained, tmp_path):
    run = _copy(trained, tmp_path)
    with pytest.raises(errors.ExportError, match="storage 'int3' is unknown"):
        exporting.export(run.path, Settings(storage="int3"))
    with pytest.raises(errors.ExportError, match="'fast' are unknown"):
        exporting.verify(run.path, Settings(kernels="fast"))


def test_a_run_that_is_not_trained(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())
    for stage in (exporting.export, exporting.verify, explaining.explain):
        with pytest.raises(errors.RunDirectoryError, match="not trained"):
            stage(run.path)


def test_records_of_older_versions_are_done_again(verified, tmp_path):
    run = _copy(verified[0], tmp_path)
    run.write_json(exporting.VERIFICATION_FILE, {"verdict": "same"})
    assert not exporting.is_readable(run.path)
    assert not exporting.is_verified(run.path)
    run.write_json("measures.json", {})
    with pytest.raises(errors.RunDirectoryError, match="qgen-export"):
        records.find(tmp_path)


def test_explaining_names_the_first_layer(verified, tmp_path, monkeypatch):
    run = _copy(verified[0], tmp_path)
    seen = []

    def explain(network, content, images, *, kernels, expand_low_bits):
        seen.append((content, images.shape, kernels, expand_low_bits))
        return tuple(_LayerDifference(*layer) for layer in _LAYERS)

    monkeypatch.setattr(explaining.divergence, "explain", explain)
    rows = explaining.explain(run.path, Settings(kernels="builtin"))
    content = (run.path / exporting.MODEL_FILE).read_bytes()
    assert seen == [(content, (100, 8, 8, 1), "builtin", False)]
    assert [tuple(row.values()) for row in rows] == [*_LAYERS]
    written = run.path / "export/divergence-builtin.json"
    assert json.loads(written.read_text()) == rows
    plot = (run.path / "export/divergence-builtin.svg").read_text()
    assert "<svg" in plot
    text = tables.divergence_text(rows)
    assert text.startswith(
        "first layer that diverges: add, by 2 steps at most, on 25 % of"
    )
    agreeing = tables.divergence_text(rows[:1])
    assert agreeing == "file and network agree in all of 1 layers"


def test_the_first_layer_that_diverges_stands_out():
    layers = [_LayerDifference(*layer) for layer in _LAYERS]
    steps, shares = divergence_figure(layers).axes
    for axis, heights in ((steps, [0, 2, 9]), (shares, [0, 25, 100])):
        assert [bar.get_height() for bar in axis.patches] == heights
        colors = [bar.get_facecolor() for bar in axis.patches]
        assert colors[0] == colors[2] != colors[1]
        labels = [label.get_text() for label in axis.get_xticklabels()]
        assert labels == ["conv", "add", "top"]


def test_the_plot_shows_intervals_and_margin(verified):
    _, record = verified
    gaps, differences = verification_page.verification_figure(record).axes
    found = record["keras_gap"]["accuracy"]
    (segment,) = gaps.collections[0].get_segments()
    assert segment[:, 1].tolist() == [found["low"], found["high"]]
    (band,) = differences.patches
    assert band.get_y() == -0.5 and band.get_height() == 1.0
