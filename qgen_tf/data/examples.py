"""One split of a data set before normalization: stored, chosen, decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors, reading

# Encoded examples among which the next one of a larger split is drawn.
STREAM_SHUFFLE_BUFFER = 8192


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split in fixed order; records are cheap to shuffle, not decoded.

    Attributes:
      name: of the data set and the split, for messages.
      records: pairs (record, label); the label is an int32 scalar.
      decode: from a record to its image, uint8 [height, width, channels].
      size: number of records.
      shuffle_buffer: number of records among which the next one is drawn;
        `size` for a perfect shuffle.
      labels: [size] when they are known without reading, else None.
      encoded: from a record to the bytes of its file; None where records
        are no files.
    """

    name: str
    records: tf.data.Dataset
    decode: Callable[[Any], tf.Tensor]
    size: int
    shuffle_buffer: int
    labels: np.ndarray | None = None
    encoded: Callable[[Any], tf.Tensor] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels; None where they are not known yet."""
        return tuple(self.images().element_spec[0].shape)

    def images(self) -> tf.data.Dataset:
        """Returns (image, label) in fixed order, uint8 and int32."""
        images = self.records.map(
            lambda record, label: (self.decode(record), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return reading.untuned(images)


def in_memory(name: str, images: np.ndarray, labels: np.ndarray) -> Examples:
    """Returns examples that are held in memory; a record is an index.

    Args:
      name: of the data set and the split.
      images: uint8, shape [size, height, width, channels].
      labels: int32, shape [size].
    """
    with tf.device("cpu:0"):
        pixels = tf.constant(images)
    indices = np.arange(len(images), dtype=np.int64)
    return Examples(
        name=name,
        records=tf.data.Dataset.from_tensor_slices((indices, labels)),
        decode=lambda index: tf.gather(pixels, index),
        size=len(images),
        shuffle_buffer=max(1, len(images)),
        labels=labels,
    )


def subset(examples: Examples, count: int, field: str) -> Examples:
    """Returns a random subset, the same for every seed of a training run.

    A smaller subset is part of every larger one. The order stays.

    Args:
      examples: to choose from.
      count: size of the subset; 0 for all examples.
      field: of the config, for the message.

    Raises:
      errors.ConfigError: `count` is negative or more than there are.
    """
    if not 0 <= count <= examples.size:
        raise errors.ConfigError(
            f"{field} is {count} but {examples.name!r} has {examples.size} "
            "examples: set it to 0 for all of them, or to at most that."
        )
    if count in (0, examples.size):
        return examples
    # RandomState: its numbers never change from one numpy to the next.
    order = np.random.RandomState(0).permutation(examples.size)
    chosen = np.zeros(examples.size, bool)
    chosen[order[:count]] = True
    mask = tf.constant(chosen)
    labels = examples.labels
    return dataclasses.replace(
        examples,
        records=examples.records.enumerate()
        .filter(lambda index, _: tf.gather(mask, index))
        .map(lambda _, record: record),
        size=count,
        shuffle_buffer=min(examples.shuffle_buffer, count),
        labels=None if labels is None else labels[chosen],
    )


def check_classes(examples: Examples, class_names: tuple[str, ...]) -> None:
    """Raises unless every class has an example.

    Labels of a split that does not fit in memory are not read for this.

    Raises:
      errors.DataError: a class is empty; the message names it.
    """
    if examples.labels is None:
        return
    counts = np.bincount(examples.labels, minlength=len(class_names))
    empty = [class_names[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        raise errors.DataError(
            f"{examples.name!r} has no example of {len(empty)} of "
            f"{len(class_names)} classes among {examples.size} examples (for "
            f"one, {empty[0]!r}): add images of it, or use more examples "
            "(dataset.num_train, dataset.num_test)."
        )
