"""Run directories: identity, atomic files, clear errors."""

import contextlib
import json
import os
import resource

import numpy as np
import pytest

from qgen_tf import errors, training
from qgen_tf.training.run_directory import RunDirectory, atomic_path, run_path
from tests import tiny


def test_a_run_is_named_after_what_determines_it(tmp_path):
    config = tiny.config()
    path = run_path(tmp_path, config)
    assert path.name.startswith("tiny-float-")
    config.measures.num_examples = 7
    config.twins = ()
    config.quantization.epochs = 99  # a float model does not depend on it
    assert run_path(tmp_path, config) == path
    config.seed = 1
    assert run_path(tmp_path, config) != path


def test_fields_that_are_newer_than_a_run_have_their_defaults(tmp_path):
    run = RunDirectory.create(tmp_path, training.with_bits(tiny.config(), 4, 8))
    content = run.read_json("config.json")
    del content["dataset"]["random_resized_crop"]
    del content["training"]["pretrained"]
    del content["quantization"]["per_axis_dense"]
    run.write_json("config.json", content)
    config = RunDirectory(run.path).config
    assert config.dataset.random_resized_crop == 0.0
    assert config.training.pretrained == ""
    assert config.quantization.per_axis_dense is False
    assert config.quantization.weight_bits == 4
    assert config.model.to_dict() == tiny.config().model.to_dict()


def test_twins_of_other_settings_share_their_float_model(tmp_path):
    config = tiny.config()
    run = RunDirectory.create(tmp_path, config)
    config.quantization.update({"quantizer": "pact", "epochs": 77})
    assert RunDirectory.create(tmp_path, config).path == run.path
    assert not training.is_quantized(run.config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 77),
        ("weight_bits", 3),
        ("per_axis", False),
        ("quantizer", "pact"),
        ("overrides", (("*", 8, 8),)),
        ("dampening", 0.1),
    ],
)
def test_a_quantized_run_depends_on_its_quantization(tmp_path, field, value):
    config = training.with_bits(tiny.config(), 4, 8)
    path = run_path(tmp_path, config)
    assert path.name.startswith("tiny-w4a8-")
    config.quantization[field] = value
    assert run_path(tmp_path, config) != path


def test_float_config_is_the_float_model_of_a_twin(tmp_path):
    config = tiny.config()
    twin = training.with_bits(config, 2, 8)
    assert not training.is_quantized(training.float_config(twin))
    assert training.is_quantized(twin)
    assert run_path(tmp_path, training.float_config(twin)) == run_path(
        tmp_path, config
    )


def test_a_weight_only_model_is_quantized():
    assert training.label(training.with_bits(tiny.config(), 4, 32)) == "w4a32"


def test_opening_again_gives_the_same_run(tmp_path):
    config = tiny.config()
    run = RunDirectory.create(tmp_path, config)
    again = RunDirectory.create(tmp_path, config)
    assert run.path == again.path
    assert again.config.model.to_dict() == config.model.to_dict()
    assert not run.is_trained


def test_a_directory_of_another_config_is_refused(tmp_path):
    config = tiny.config()
    run = RunDirectory.create(tmp_path, config)
    content = run.read_json("config.json")
    content["seed"] = 5
    run.write_json("config.json", content)
    with pytest.raises(errors.RunDirectoryError, match="another config"):
        RunDirectory.create(tmp_path, config)


def test_files_of_somebody_else_are_left_alone(tmp_path):
    config = tiny.config()
    folder = run_path(tmp_path, config)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(errors.RunDirectoryError, match="no config.json"):
        RunDirectory.create(tmp_path, config)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_work_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.RunDirectoryError, match="choose another"):
        RunDirectory.create(tmp_path / "file", tiny.config())


def test_what_is_no_run_directory(tmp_path):
    with pytest.raises(errors.RunDirectoryError, match="no config.json"):
        RunDirectory(tmp_path)


def test_an_unfinished_run_says_how_to_finish(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())
    with pytest.raises(errors.RunDirectoryError, match="qgen-train"):
        run.require_trained()
    with pytest.raises(errors.RunDirectoryError, match="qgen-train"):
        training.load_model(run.path)


def test_json_files(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())
    run.write_json("a.json", {"value": [1, 2.5]})
    assert run.read_json("a.json") == {"value": [1, 2.5]}
    with pytest.raises(ValueError, match="JSON compliant"):
        run.write_json("a.json", {"value": float("nan")})
    assert run.read_json("a.json") == {"value": [1, 2.5]}
    (run.path / "a.json").write_text('{"value": ')
    with pytest.raises(errors.RunDirectoryError, match="damaged"):
        run.read_json("a.json")
    with pytest.raises(errors.RunDirectoryError, match="missing"):
        run.read_json("b.json")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "result.json"
    with pytest.raises(KeyboardInterrupt):
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []
    litter = target.parent / f".writing-{target.name}"
    litter.mkdir()  # as a killed process leaves it
    (litter / target.name).write_text("half")
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".json" and not temporary.exists()
        temporary.write_text(json.dumps(1))
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]


@contextlib.contextmanager
def _largest_file(num_bytes):
    """Lets no file of this process grow further, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("arrays.npz", lambda path: np.savez(path, np.zeros(9999))),
        ("train.json", lambda path: path.write_text("1" * 30000)),
    ],
)
def test_a_full_disk_leaves_nothing_half_written(tmp_path, name, write):
    target = tmp_path / name
    target.write_text("old")
    with _largest_file(20000):
        with pytest.raises(
            errors.RunDirectoryError, match=f"cannot write .*{name}: File too"
        ):
            with atomic_path(target) as temporary:
                write(temporary)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_room_is_made_sure_of_before_anything_is_written(tmp_path):
    target = tmp_path / "final.weights.h5"
    with _largest_file(20000):
        with pytest.raises(errors.RunDirectoryError, match="File too large"):
            with atomic_path(target, num_bytes=20001):
                pytest.fail("the writer must not start")
        with atomic_path(target, num_bytes=20000) as temporary:
            temporary.write_text("1")
    assert target.read_text() == "1"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.RunDirectoryError, match="Not a directory; make"):
        with atomic_path(tmp_path / "file" / "result.json"):
            pass
    assert os.listdir(tmp_path) == ["file"]


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        with atomic_path(tmp_path / "result.json"):
            open(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
