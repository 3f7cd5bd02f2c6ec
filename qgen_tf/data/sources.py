"""A data set as it is stored, and how one is read with tfds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import examples


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is stored.

    Attributes:
      class_names: the label is an index of this.
      train: training examples.
      test: test examples.
    """

    class_names: tuple[str, ...]
    train: examples.Examples
    test: examples.Examples


def from_builder(name: str, builder: Any, held_out: str) -> Source:
    """Returns the splits "train" and `held_out` of a prepared tfds builder.

    Raises:
      errors.DataError: examples are not pairs of image and label.
    """
    image_key, label_key = _supervised_keys(name, builder)
    image = builder.info.features[image_key]

    def split_examples(split: str) -> examples.Examples:
        return examples.Examples(
            name=f"{name} {split}",
            records=_encoded(builder, split, image_key).map(
                lambda record: (record, tf.cast(record[label_key], tf.int32))
            ),
            decode=lambda record: image.decode_example(record[image_key]),
            size=builder.info.splits[split].num_examples,
            shuffle_buffer=examples.STREAM_SHUFFLE_BUFFER,
            encoded=lambda record: record[image_key],
        )

    return Source(
        class_names=tuple(builder.info.features[label_key].names),
        train=split_examples("train"),
        test=split_examples(held_out),
    )


def _encoded(builder: Any, split: str, image_key: str) -> tf.data.Dataset:
    """Returns the records of a split in fixed order, images not decoded."""
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={image_key: tfds.decode.SkipDecoding()},
    )


def _supervised_keys(name: str, builder: Any) -> tuple[str, str]:
    """Returns the keys of the image and of the label in a record."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = builder.info.supervised_keys
    if (
        keys is None
        or len(keys) != 2
        or not all(isinstance(key, str) and key in features for key in keys)
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or features[keys[0]].np_dtype != np.uint8
    ):
        raise errors.DataError(
            f"data set {name!r} is not one of 8-bit images with a class "
            f"label (its supervised keys are {keys}): set dataset.name to a "
            "data set for image classification."
        )
    return keys


def labeled_split(name: str, builder: Any) -> str:
    """Returns "test" or, where its labels are hidden, "validation".

    Raises:
      errors.DataError: there is neither.
    """
    image_key, label_key = _supervised_keys(name, builder)
    for split in ("test", "validation"):
        if split in filled_splits(builder):
            for record in _encoded(builder, split, image_key).take(1):
                if record[label_key] >= 0:
                    return split
    raise missing_split(name, builder, "test")


def filled_splits(builder: Any) -> list[str]:
    """Returns the names of the splits that have an example."""
    splits = builder.info.splits
    return sorted(name for name in splits if splits[name].num_examples)


def missing_split(name: str, builder: Any, split: str) -> errors.DataError:
    """Returns the error for a split that a data set should have."""
    known = ", ".join(filled_splits(builder)) or "none"
    wanted = '"train"' if split == "train" else '"test" or "validation"'
    return errors.DataError(
        f"data set {name!r} has no labeled split {wanted} (with examples: "
        f"{known}): rename a split, or set dataset.name to another data set."
    )
