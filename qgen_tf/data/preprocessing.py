"""From decoded images of any size to the pixels that a network reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import crops, examples

# A split whose uint8 pixels take no more bytes is decoded once, into memory.
MAX_BYTES_IN_MEMORY = 2**30

# Mean and standard deviation of each channel, for pixels in 0..1.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CHANNEL_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet2012": _IMAGENET,
    "imagenet_resized": _IMAGENET,
    "imagenet_v2": _IMAGENET,
    "imagenette": _IMAGENET,
    "imagewoof": _IMAGENET,
}
# What published weights were trained with, as such statistics.
NORMALIZATIONS = {
    "imagenet": _IMAGENET,
    # to [-1, 1]
    "symmetric": (0.5, 0.5),
    # the mean is subtracted, the range stays that of 0..255
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), 1 / 255),
}
AUTO = "auto"


def resize(image: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Resizes an image without keeping its proportions.

    Bilinear, and smoothed before it shrinks (antialias), so that no pixel of
    the image is skipped.

    Args:
      image: uint8, shape [height, width, channels].
      shape: the shape to return.

    Returns:
      uint8, rounded to whole values.
    """
    if tuple(image.shape) == shape:
        return image
    resized = tf.image.resize(image, shape[:2], antialias=True)
    return tf.ensure_shape(tf.saturate_cast(tf.round(resized), tf.uint8), shape)


def check_normalization(normalization: str, channels: int) -> None:
    """Raises a ConfigError unless images can be normalized so."""
    if normalization not in (AUTO, *NORMALIZATIONS):
        raise errors.ConfigError(
            f"dataset.normalization {normalization!r} is unknown: choose one "
            f"of {[AUTO, *NORMALIZATIONS]}."
        )
    if normalization not in (AUTO, "symmetric") and channels != 3:
        raise errors.ConfigError(
            f"dataset.normalization {normalization!r} is of 3 channels and "
            f"the images have {channels}: set it to {AUTO!r} or 'symmetric'."
        )


def normalizer(
    dataset_name: str, normalization: str = AUTO
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from pixels in 0..255 to the input of a network.

    Args:
      dataset_name: a name of tfds may carry a config and a version
        (`imagenet_resized/32x32:0.1.0`).
      normalization: one of `NORMALIZATIONS`, or "auto": channels of a data
        set in `CHANNEL_STATISTICS` get mean 0 and standard deviation 1 over
        the training set; other pixels are mapped to [-1, 1].

    Returns:
      A function of a tensor [..., channels]; it returns float32.
    """
    statistics: Any
    if normalization == AUTO:
        base_name = dataset_name.split(":")[0].split("/")[0]
        statistics = CHANNEL_STATISTICS.get(base_name, (0.5, 0.5))
    else:
        statistics = NORMALIZATIONS[normalization]
    mean, deviation = statistics

    def normalize(pixels: tf.Tensor) -> tf.Tensor:
        return (tf.cast(pixels, tf.float32) / 255.0 - mean) / deviation

    return normalize


def resized(
    stored: examples.Examples, image_size: int, center_crop: float = 0.0
) -> examples.Examples:
    """Returns the examples with square images, in memory when they fit.

    Args:
      stored: with images of any size.
      image_size: pixels a side; 0 keeps the size, which must then be the same
        for all.
      center_crop: side of the square in the middle that is resized, in units
        of the shorter side of the image; 0 for the whole image, whose
        proportions are then not kept.

    Raises:
      errors.ConfigError: `image_size` is negative, or `center_crop` is not in
        [0, 1] or has no size.
      errors.DataError: there is no example, an image cannot be decoded, or
        sizes differ and `image_size` is 0. The message names the image; but
        in a split that does not fit in memory, all images after the first are
        decoded only when they are used, and TensorFlow's error is raised.
    """
    if image_size < 0:
        raise errors.ConfigError(
            f"dataset.image_size is {image_size}: set it to pixels a side, or "
            "to 0 to keep the size of the images."
        )
    crops.check("dataset.center_crop", center_crop)
    if center_crop and not image_size:
        raise errors.ConfigError(
            f"dataset.center_crop is {center_crop} and dataset.image_size is "
            "0: set it to the pixels a side that crops are resized to."
        )
    shape = _first_shape(stored)
    if image_size:
        shape = (image_size, image_size, shape[2])

    def decode(record: Any) -> tf.Tensor:
        if center_crop:
            window = crops.center(center_crop)
            image = crops.decoded(stored, record, window, channels=shape[2])
        else:
            image = stored.decode(record)
        if image_size:
            return resize(image, shape)
        return tf.ensure_shape(image, shape)

    result = dataclasses.replace(stored, decode=decode, encoded=None)
    if stored.size * int(np.prod(shape)) > MAX_BYTES_IN_MEMORY:
        return result
    try:
        images, labels = _read(result)
    except tf.errors.InvalidArgumentError as error:
        _explain(stored, image_size, shape, error)
    return examples.in_memory(stored.name, images, labels)


def _first_shape(stored: examples.Examples) -> tuple[int, int, int]:
    for record, _ in stored.records.take(1):
        return tuple(_decoded(stored, record, 0).shape)
    raise errors.DataError(
        f"{stored.name!r} has no example: add images, or prepare it again."
    )


def _read(stored: examples.Examples) -> tuple[np.ndarray, np.ndarray]:
    batches = list(stored.images().batch(256).as_numpy_iterator())
    images = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([classes for _, classes in batches])
    if len(images) != stored.size:
        raise errors.DataError(
            f"{stored.name!r} has {len(images)} examples instead of "
            f"{stored.size}: prepare the data set again."
        )
    return images, labels


def _explain(
    stored: examples.Examples,
    image_size: int,
    shape: tuple[int, int, int],
    error: tf.errors.InvalidArgumentError,
) -> NoReturn:
    """Raises an error that names the first image at fault."""
    for index, (record, _) in enumerate(stored.records):
        found = tuple(_decoded(stored, record, index).shape)
        if not image_size and found != shape:
            raise errors.DataError(
                f"{stored.name!r} has images of several sizes ({found} after "
                f"{shape}): set dataset.image_size to resize them to one."
            ) from error
    raise error


def _decoded(stored: examples.Examples, record: Any, index: int) -> tf.Tensor:
    try:
        return stored.decode(record)
    except tf.errors.InvalidArgumentError as error:
        name = f"example {index}"
        if isinstance(record, dict) and "image/filename" in record:
            name = record["image/filename"].numpy().decode()
        raise errors.DataError(
            f"{name} of {stored.name!r} is not a readable image: replace or "
            "remove it."
        ) from error
