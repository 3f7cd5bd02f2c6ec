"""Files of weights that somebody has damaged, or made to harm."""

import json

import h5py
import numpy as np
import pytest

from qgen_tf import errors, models, training
from qgen_tf.quantization import quantize_model
from qgen_tf.training import TRAINED_FILE, RunDirectory, load_model
from qgen_tf.training.saved_model import save_weights, scheme
from tests import tiny

_FACTS = {"image_shape": [8, 8, 1], "num_classes": 10}


@pytest.fixture(params=[None, (4, 8)], ids=["float", "twin"])
def run(request, tmp_path):
    """Returns a run that looks trained, and its model."""
    config = tiny.config()
    if request.param:
        config = training.with_bits(config, *request.param)
    run = RunDirectory.create(tmp_path, config)
    model = models.build(config.model, (8, 8, 1), 10)
    if request.param:
        model = quantize_model(model, scheme(config))
    run.write_json(TRAINED_FILE, _FACTS)
    save_weights(model, run, "final.weights.h5")
    return run, model


def _file(run):
    return run.path / "final.weights.h5"


def _dataset(group):
    """Returns the first array in a file, and the group that it is in."""
    for name, item in group.items():
        found = (
            _dataset(item) if isinstance(item, h5py.Group) else (group, name)
        )
        if found:
            return found
    return None


def _refused(run, message):
    with pytest.raises(
        errors.RunDirectoryError,
        match=rf"^(?!.*\n).*h5 cannot be read \(.*{message}.*: delete .*\.$",
    ):
        load_model(run.path)


def test_weights_come_back(run):
    run, model = run
    for found, wanted in zip(
        load_model(run.path).weights, model.weights, strict=True
    ):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_numbers_of_another_file_are_not_read(run, tmp_path):
    run, _ = run
    with h5py.File(_file(run), "a") as file:
        group, name = _dataset(file)
        shape = group[name].shape
        del group[name]
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(4 * int(np.prod(shape))))
        group.create_dataset(
            name, shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        )
    _refused(run, "are in another file")


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/x")]
)
def test_links_are_not_followed(run, link):
    run, _ = run
    with h5py.File(_file(run), "a") as file:
        group, name = _dataset(file)
        del group[name]
        group[name] = link
    _refused(run, "is a link")


def test_a_file_does_not_grow_as_it_is_read(run):
    run, _ = run
    with h5py.File(_file(run), "a") as file:
        group, name = _dataset(file)
        del group[name]
        # 4 TB that take no room in the file
        group.create_dataset(name, (10**12,), "f4", chunks=(10**6,))
    assert _file(run).stat().st_size < 10**6
    _refused(run, "has 400000000.* bytes of a model of")


@pytest.mark.parametrize("kind", ["folder", "nothing", "text", "device"])
def test_what_is_no_file_of_weights(run, kind):
    run, _ = run
    _file(run).unlink()
    if kind == "folder":
        _file(run).mkdir()
    elif kind == "text":
        _file(run).write_text("weights")
    elif kind == "device":
        _file(run).symlink_to("/dev/zero")
    _refused(run, "signature" if kind == "text" else "missing, or no file")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_shape", [8, 8]),
        ("image_shape", [8, 8, 0]),
        ("image_shape", [10**6, 8, 1]),
        ("image_shape", "8x8"),
        ("image_shape", None),
        ("num_classes", 10**9),
        ("num_classes", -1),
        ("num_classes", "ten"),
    ],
)
def test_sizes_that_are_none(run, field, value):
    run, _ = run
    text = json.dumps({**_FACTS, field: value})
    (run.path / TRAINED_FILE).write_text(text)
    with pytest.raises(
        errors.RunDirectoryError, match=r"train.json is damaged \(.*: delete"
    ):
        load_model(run.path)
