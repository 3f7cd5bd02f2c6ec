"""Data sets without examples."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors, training
from tests import tiny


def _nothing(root):
    return "has no labeled split"


def _empty_splits(root):
    for split in ("train", "test"):
        (root / split).mkdir()
    return "no labeled split|is missing or has no image"


def _empty_classes(root):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
    return "cat' is missing or has no image"


def _empty_test_class(root):
    image = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    _empty_classes(root)
    for path in ("train/cat", "train/dog", "test/dog"):
        (root / path / "0.png").write_bytes(image)
    return "test/cat' is missing or has no image"


def _empty_files(root):
    _empty_test_class(root)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name / "0.png").write_bytes(b"")
    return "0.png"


@pytest.mark.parametrize(
    "make",
    [_nothing, _empty_splits, _empty_classes, _empty_test_class, _empty_files],
)
def test_training_does_not_begin(tmp_path, refused, make):
    root, workdir = tmp_path / "images", tmp_path / "runs"
    root.mkdir()
    message = make(root)
    config = tiny.config()
    config.dataset.update(
        {"name": f"image_folder:{root}", "num_train": 0, "num_test": 0}
    )
    with refused(f"({message})", errors.DataError):
        training.train(config, workdir)
    assert not list(workdir.glob("*/train.json"))
