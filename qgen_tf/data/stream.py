"""Epochs of batches that can be taken up again at any epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from qgen_tf.data import augmentation, examples

# What the seed of an epoch is folded with, one number a purpose.
_ORDER, _IMAGE, _BATCH, _CROP = range(4)


def epochs_of_batches(
    stored: examples.Examples,
    augment: augmentation.Augmentation,
    normalize: Callable[[tf.Tensor], tf.Tensor],
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    batch_size: int,
    seed: int,
    epochs: range,
) -> tf.data.Dataset:
    """Returns shuffled and augmented batches, one epoch after another.

    Every random number is a stateless function of the seed, the epoch, and
    the place of the image in the epoch or of the batch in the epoch: none
    depends on the epochs before, on other threads or on the global seed of
    TensorFlow.

    Args:
      stored: the training examples; their images may have any size if
        `augment` crops them.
      augment: what is done to images and labels.
      normalize: what is done to batches of pixels at the end.
      image_shape: (height, width, channels) of every image of a batch.
      num_classes: number of classes.
      batch_size: examples a batch; the last of an epoch may have fewer.
      seed: of the run.
      epochs: which epochs, a range with step 1.

    Returns:
      Batches (images float32 [batch, height, width, channels]; labels float32
      [batch, num_classes], each row sums to one).
    """
    read = augment.read_fn(stored, image_shape)
    augment_image = augment.image_fn()
    augment_batch = augment.batch_fn(image_shape)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.random.fold_in((seed, 0), epoch)

        def image_and_label(index, example):
            record, label = example
            image = read(record, _seed(epoch_seed, _CROP, index))
            image = tf.cast(image, tf.float32)
            image = augment_image(image, _seed(epoch_seed, _IMAGE, index))
            return image, tf.one_hot(label, num_classes)

        def batch(index, images_and_labels):
            images, labels = images_and_labels
            seed = _seed(epoch_seed, _BATCH, index)
            images, labels = augment_batch(images, labels, seed)
            return normalize(images), labels

        return (
            _shuffled(stored, _seed(epoch_seed, _ORDER, 0))
            .enumerate()
            .map(image_and_label, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch_size)
            .enumerate()
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        )

    return (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(one_epoch)
        .prefetch(tf.data.AUTOTUNE)
    )


def _shuffled(stored: examples.Examples, seed: tf.Tensor) -> tf.data.Dataset:
    # `shuffle` mixes its seed with that of the graph it is called in, by
    # default the global seed. Here it is called in the graph of one epoch.
    tf.compat.v1.get_default_graph().seed = 1
    return stored.records.shuffle(
        stored.shuffle_buffer,
        seed=tf.random.stateless_uniform([], seed, None, None, tf.int64),
        reshuffle_each_iteration=False,
    )


def _seed(epoch_seed: tf.Tensor, purpose: int, index: Any) -> tf.Tensor:
    """Returns the seed of the index-th draw for one purpose in an epoch."""
    return tf.random.fold_in(tf.random.fold_in(epoch_seed, purpose), index)
