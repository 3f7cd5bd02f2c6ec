"""Where examples come from: a name -> its training and test examples."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from qgen_tf import errors
from qgen_tf.data import examples, sources

IMAGE_FOLDER = "image_folder"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # those of tfds.ImageFolder


def digits() -> sources.Source:
    """Returns scikit-learn's digits, 8x8 gray: 1,347 to train, 450 to test.

    The split has the same share of each class on both sides and never
    changes.
    """
    import sklearn.datasets
    import sklearn.model_selection

    bunch = sklearn.datasets.load_digits()
    images = np.round(bunch.images[..., np.newaxis] / 16 * 255)
    split = sklearn.model_selection.train_test_split(
        images.astype(np.uint8),
        bunch.target.astype(np.int32),
        test_size=0.25,
        random_state=0,
        stratify=bunch.target,
    )
    train_images, test_images, train_labels, test_labels = split
    return sources.Source(
        class_names=tuple(str(name) for name in bunch.target_names),
        train=examples.in_memory("digits train", train_images, train_labels),
        test=examples.in_memory("digits test", test_images, test_labels),
    )


def tfds_dataset(name: str) -> sources.Source:
    """Returns a data set of tensorflow_datasets that has images and labels.

    It is read from `TFDS_DATA_DIR` (or ~/tensorflow_datasets), and downloaded
    to there when it is not there yet. The test examples are the split "test"
    or, where there is none or its labels are hidden, "validation".

    Raises:
      errors.DataError: the name is unknown, the data are not to be had, a
        split is missing or empty, or examples are not pairs of image and label.
    """
    import tensorflow_datasets as tfds

    data_dir = os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        raise errors.DataError(
            f"dataset.name {name!r} is unknown: use "
            f"{', '.join(sorted(DATASETS))}, {IMAGE_FOLDER}:<path>, or a name "
            "that `tfds.list_builders()` returns."
        ) from None
    except Exception as error:
        raise errors.DataError(
            f"dataset.name {name!r} cannot be used: tensorflow_datasets says "
            f"{_first_line(error)!r}."
        ) from error
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise errors.DataError(
            f"data set {name!r} is not in {builder.data_dir} and preparing it "
            f"needs the package {error.name}: run `pip install {error.name}`, "
            "or set TFDS_DATA_DIR to a folder that has the data set."
        ) from error
    except Exception as error:
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise _manual_download(name, builder) from error
        raise errors.DataError(
            f"data set {name!r} is not in {builder.data_dir} and cannot be "
            f"downloaded ({_first_line(error)}): set TFDS_DATA_DIR to a "
            f"folder that has it, or run `tfds build {name}` on a machine "
            "with internet access."
        ) from error
    if "train" not in sources.filled_splits(builder):
        raise sources.missing_split(name, builder, "train")
    return sources.from_builder(
        name, builder, sources.labeled_split(name, builder)
    )


def image_folder(path: str) -> sources.Source:
    """Returns a folder of images, {train,test}/<class>/*.{png,jpg,jpeg}.

    "validation" serves when there is no "test". Images are decoded to three
    channels whatever they have.

    Raises:
      errors.DataError: the folder or a split is missing, or a class has no
        image in one of the two splits.
    """
    import tensorflow_datasets as tfds

    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise errors.DataError(
            f"dataset.name {IMAGE_FOLDER + ':' + path!r} names no folder: "
            "give the path of one with train/<class>/ and test/<class>/."
        )
    builder = tfds.ImageFolder(str(root))
    held_out = "test" if "test" in builder.info.splits else "validation"
    for split in ("train", held_out):
        if split not in builder.info.splits:
            raise sources.missing_split(str(root), builder, split)
        for class_name in builder.info.features["label"].names:
            _check_has_image(root / split / class_name)
    return sources.from_builder(str(root), builder, held_out)


DATASETS: dict[str, Callable[[], sources.Source]] = {
    "digits": digits,
    "cifar10": functools.partial(tfds_dataset, "cifar10"),
    "cifar100": functools.partial(tfds_dataset, "cifar100"),
}


def source(name: str) -> sources.Source:
    """Returns the data set of a `dataset.name`."""
    if name in DATASETS:
        return DATASETS[name]()
    kind, _, path = name.partition(":")
    if kind == IMAGE_FOLDER:
        return image_folder(path)
    return tfds_dataset(name)


def _check_has_image(folder: pathlib.Path) -> None:
    if folder.is_dir() and any(
        path.suffix.lower() in _IMAGE_SUFFIXES for path in folder.iterdir()
    ):
        return
    raise errors.DataError(
        f"class folder {str(folder)!r} is missing or has no image: put "
        f"{', '.join(_IMAGE_SUFFIXES)} files in it, or remove the class from "
        "every split."
    )


def _manual_download(name: str, builder: Any) -> errors.DataError:
    """Returns the error for data that nobody can download without a login."""
    root = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    instructions = instructions.rstrip(".").replace(". ", "; ")
    return errors.DataError(
        f"data set {name!r} is not in {builder.data_dir} and has to be "
        "downloaded by hand: put its archives into "
        f"{root}/downloads/manual (tensorflow_datasets says: {instructions}) "
        f"and run `tfds build {name} --data_dir={root}`, or set TFDS_DATA_DIR "
        "to a folder that has the data set."
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
