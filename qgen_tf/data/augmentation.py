"""Augmentation of training images by keras-cv layers, seeded by argument."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from qgen_tf import compat, errors
from qgen_tf.data import crops, examples, preprocessing, stateless

ReadFn = Callable[[Any, tf.Tensor], tf.Tensor]
ImageFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
BatchFn = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]
]
Mixer = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to a training image before it is normalized.

    Attributes:
      random_resized_crop: smallest share of the area of a window of random
        place and proportions, which is resized to the size of the images; 0
        for whole images.
      crop_padding: pixels; the image is moved by a whole number of pixels,
        uniform in [-crop_padding, crop_padding] on each axis, over black:
        a random crop after padding.
      flip: whether half of the images are mirrored left to right.
      rand_augment: magnitude in [0, 1] of two operations an image, drawn by
        RandAugment; 0 is off.
      mixup: alpha of MixUp's Beta distribution; 0 is off.
      cutmix: alpha of CutMix's Beta distribution; 0 is off. When both are on,
        each batch gets one of them, with equal chance.
    """

    random_resized_crop: float
    crop_padding: int
    flip: bool
    rand_augment: float
    mixup: float
    cutmix: float

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `errors.ConfigError` for a value that cannot be used."""
        height, width, channels = image_shape
        side = min(height, width)
        crops.check("dataset.random_resized_crop", self.random_resized_crop)
        if not 0 <= self.crop_padding < side:
            raise errors.ConfigError(
                f"dataset.crop_padding is {self.crop_padding}: set it to a "
                f"number of pixels from 0 to {side - 1}, less than the image."
            )
        if not 0 <= self.rand_augment <= 1:
            raise errors.ConfigError(
                f"dataset.rand_augment is {self.rand_augment}: set it to a "
                "magnitude in [0, 1], 0 for none."
            )
        if self.rand_augment and channels not in (1, 3):
            raise errors.ConfigError(
                f"dataset.rand_augment needs images of 1 or 3 channels, these "
                f"have {channels}: set it to 0."
            )
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            if alpha != 0 and not (0.1 <= alpha and math.isfinite(alpha)):
                raise errors.ConfigError(
                    f"dataset.{name} is {alpha}: set it to 0 for none or to "
                    "the alpha of a Beta distribution, 0.1 or more."
                )

    def read_fn(
        self, stored: examples.Examples, image_shape: tuple[int, int, int]
    ) -> ReadFn:
        """Returns how an image is read.

        Where it is cropped it is mirrored, too: of bytes, that costs a tenth
        of what it costs of a batch of floats.

        The function takes a record of `stored` and a seed [2]; it returns
        the image, uint8 `image_shape`.

        Args:
          stored: with images of any size if they are cropped, else of
            `image_shape`.
          image_shape: (height, width, channels) of what is read.
        """
        if not self.random_resized_crop:
            return lambda record, seed: stored.decode(record)

        def read(record: Any, seed: tf.Tensor) -> tf.Tensor:
            window = crops.random(self.random_resized_crop, seed)
            image = crops.decoded(
                stored, record, window, channels=image_shape[2]
            )
            image = preprocessing.resize(image, image_shape)
            if not self.flip:
                return image
            seed = tf.random.fold_in(seed, 1)
            return tf.image.stateless_random_flip_left_right(image, seed)

        return read

    def image_fn(self) -> ImageFn:
        """Returns what is done to one image.

        The function takes an image [height, width, channels], float32 in
        0..255, and a seed [2]; it returns such an image.
        """
        if not self.rand_augment:
            return lambda image, seed: image
        with stateless.layers():
            layer = compat.keras_cv().layers.RandAugment(
                value_range=(0, 255),
                augmentations_per_image=2,
                magnitude=self.rand_augment,
            )

        @tf.function  # the layer has Python branches on tensors
        def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            with stateless.draws(seed):
                if image.shape[-1] == 3:
                    return layer(image)
                # The layer wants colors; a gray image stays gray in it.
                return layer(tf.image.grayscale_to_rgb(image))[..., :1]

        return augment

    def batch_fn(self, image_shape: tuple[int, int, int]) -> BatchFn:
        """Returns what is done to a batch of images and their labels.

        The function takes images [batch, height, width, channels], float32 in
        0..255, one-hot labels [batch, classes] and a seed [2]; it returns
        images and labels of the same shapes. Each row of labels sums to one.
        """
        with stateless.layers():
            image_layers = self._image_layers(image_shape)
            mixers = self._mixers()

        @tf.function
        def augment(
            images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            with stateless.draws(seed):
                for layer in image_layers:
                    images = layer(images)
                return _mix(mixers, images, labels)

        return augment

    def _image_layers(self, image_shape: tuple[int, int, int]) -> list[Any]:
        chosen = []
        if self.crop_padding:
            # Whole pixels are the nearest to a draw from this range, each
            # shift as likely as any other. (keras-cv's RandomCrop resamples.)
            reach = self.crop_padding + 0.5
            chosen.append(
                compat.keras_cv().layers.RandomTranslation(
                    height_factor=reach / image_shape[0],
                    width_factor=reach / image_shape[1],
                    fill_mode="constant",
                    interpolation="nearest",
                )
            )
        if self.flip and not self.random_resized_crop:
            chosen.append(compat.keras_cv().layers.RandomFlip("horizontal"))
        return chosen

    def _mixers(self) -> list[Mixer]:
        chosen: list[Mixer] = []
        if self.mixup:
            layer = compat.keras_cv().layers.MixUp(self.mixup)
            chosen.append(functools.partial(_mixup, layer))
        if self.cutmix:
            layer = compat.keras_cv().layers.CutMix(self.cutmix)
            chosen.append(functools.partial(_cutmix, layer))
        return chosen


def _mix(
    mixers: list[Mixer], images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies the only mixer, or one of two with equal chance, or none."""
    if not mixers:
        return images, labels
    if len(mixers) == 1:
        return mixers[0](images, labels)
    first, second = mixers
    return tf.cond(
        tf.random.uniform([]) < 0.5,
        lambda: first(images, labels),
        lambda: second(images, labels),
    )


def _mixup(
    layer: Any, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    mixed = layer({"images": images, "labels": labels})
    return mixed["images"], mixed["labels"]


def _cutmix(
    layer: Any, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes images, and labels by the share of pixels that each image has.

    The layer weighs labels by the area of the rectangle that it drew, also
    where the rectangle sticks out of the image. So a plane that says which
    image a pixel is from goes through it, as a segmentation mask, and the
    share is counted there.
    """
    batch, height, width, _ = tf.unstack(tf.shape(images))
    own = tf.reshape(tf.range(tf.cast(batch, tf.float32)), [-1, 1, 1, 1])
    origin = layer(
        {
            "images": images,
            "segmentation_masks": tf.tile(own, [1, height, width, 1]),
        }
    )
    kept = origin["segmentation_masks"] == own
    share = tf.reduce_mean(tf.cast(kept, tf.float32), axis=[1, 2])
    other = tf.where(kept, -1.0, origin["segmentation_masks"])
    other = tf.cast(tf.reduce_max(other, axis=[1, 2, 3]), tf.int32)
    others_labels = tf.gather(labels, tf.maximum(other, 0))
    labels = share * labels + (1.0 - share) * others_labels
    return origin["images"], labels
