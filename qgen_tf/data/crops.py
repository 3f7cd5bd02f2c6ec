"""Windows of images: random ones to train on, the middle to evaluate on.

Of a JPEG only the window is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import examples

# From the shape of an image [height, width, channels] to the window in it
# [top, left, height, width], int32 in pixels.
ChooseWindow = Callable[[tf.Tensor], tf.Tensor]

# Of width to height, and draws before the whole image is taken: as in the
# training of Inception (Szegedy et al. 2014, arXiv 1409.4842, section 6).
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_MAX_ATTEMPTS = 100


def check(field: str, share: float) -> None:
    """Raises a ConfigError unless a field is a share of an image, or 0."""
    if not 0 <= share <= 1:
        raise errors.ConfigError(
            f"{field} is {share}: set it to a share in (0, 1], or to 0 for "
            "none."
        )


def center(share: float) -> ChooseWindow:
    """Returns the choice of the square in the middle.

    Args:
      share: its side, in units of the shorter side of the image; a side of
        0.875 is the window of 224 pixels in an image whose shorter side was
        resized to 256.
    """

    def choose(shape: tf.Tensor) -> tf.Tensor:
        size = shape[:2]
        shorter = tf.cast(tf.reduce_min(size), tf.float32)
        side = tf.maximum(tf.cast(tf.round(share * shorter), tf.int32), 1)
        return tf.concat([(size - side) // 2, [side, side]], axis=0)

    return choose


def random(smallest_share: float, seed: tf.Tensor) -> ChooseWindow:
    """Returns the choice of a window of random area, proportions and place.

    Args:
      smallest_share: of the area of the image; the largest is all of it.
      seed: shape [2], int32 or int64.
    """

    def choose(shape: tf.Tensor) -> tf.Tensor:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=_ASPECT_RATIOS,
            area_range=(smallest_share, 1.0),
            max_attempts=_MAX_ATTEMPTS,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    return choose


def decoded(
    stored: examples.Examples,
    record: Any,
    choose: ChooseWindow,
    *,
    channels: int,
) -> tf.Tensor:
    """Returns the window of an image.

    The colors of a JPEG have often half the resolution; then they are not
    interpolated across the sides of the window.

    Args:
      stored: what the record is from.
      record: of one image, of any size.
      choose: the window.
      channels: of the image.

    Returns:
      uint8, shape [height, width, channels].
    """

    def of_image() -> tf.Tensor:
        image = stored.decode(record)
        top, left, height, width = tf.unstack(choose(tf.shape(image)), num=4)
        return image[top : top + height, left : left + width]

    if stored.encoded is None:
        return of_image()
    content = stored.encoded(record)

    def of_jpeg() -> tf.Tensor:
        window = choose(tf.image.extract_jpeg_shape(content))
        return tf.image.decode_and_crop_jpeg(content, window, channels)

    return tf.cond(tf.io.is_jpeg(content), of_jpeg, of_image)
