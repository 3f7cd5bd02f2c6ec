"""The three views of a data set: training stream, training set, test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections
import tensorflow as tf

from qgen_tf import config, errors, sharing
from qgen_tf.data import (
    augmentation,
    corruptions,
    datasets,
    examples,
    preprocessing,
    sources,
    stream,
)

_AT_ONCE = 32  # images that are normalized


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set, ready to train on and to measure on.

    Attributes:
      name: `dataset.name`.
      num_classes: number of classes.
      image_shape: (height, width, channels) of every image.
      class_names: the label is an index of this.
      num_train: number of training examples.
      num_test: number of test examples.
      train: (image, label) of the training set in fixed order, not augmented,
        not batched; image float32 `image_shape`, normalized; label int32.
      test: the same of the test set.
      train_examples: what a training stream reads: the training set before
        normalization, as it is stored where images are cropped at random.
      test_examples: the test set before normalization.
      augmentation: what a training stream does to the images.
      normalize: from pixels in 0..255 to the input of a network.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    num_train: int
    num_test: int
    train: tf.data.Dataset
    test: tf.data.Dataset
    train_examples: examples.Examples
    test_examples: examples.Examples
    augmentation: augmentation.Augmentation
    normalize: Callable[[tf.Tensor], tf.Tensor]

    def corrupted_test(
        self, kind: str, *, severity: int, seed: int = 0
    ) -> tf.data.Dataset:
        """Returns what `test` is, with corrupted images.

        Args:
          kind: see `corruptions.CORRUPTIONS`.
          severity: 1..5, from weak to strong.
          seed: of what is drawn for the images.

        Raises:
          errors.UserError: see `corruptions.corrupted`.
        """
        return _normalized(
            corruptions.corrupted(
                self.test_examples, kind, severity=severity, seed=seed
            ),
            self.normalize,
        )

    @errors.typed
    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches of an epoch, the last one included."""
        if batch_size < 1:
            raise errors.ConfigError(
                f"batch_size is {batch_size}: set it to 1 or more."
            )
        return -(-self.num_train // batch_size)

    @errors.typed
    def training_stream(
        self, *, batch_size: int, seed: int, epochs: int, first_epoch: int = 0
    ) -> tf.data.Dataset:
        """Returns shuffled and augmented batches, epoch after epoch.

        What epoch e consists of, order and augmentation, is a function of
        `seed`, `batch_size` and e alone. A run that was stopped after epoch e
        goes on with `first_epoch=e + 1` and sees what it would have seen.

        Args:
          batch_size: examples a batch; the last of an epoch may have fewer.
          seed: of the run.
          epochs: the stream ends before this epoch.
          first_epoch: the stream starts with this epoch, counted from 0.

        Returns:
          Batches (images float32 [batch, *image_shape], normalized; one-hot
          labels float32 [batch, num_classes]), `steps_per_epoch` an epoch.

        Raises:
          errors.ConfigError: `batch_size` or the range of epochs is not
            positive.
        """
        steps = self.steps_per_epoch(batch_size)
        if not 0 <= first_epoch <= epochs:
            raise errors.ConfigError(
                f"there are no epochs from {first_epoch} to {epochs}: choose "
                "0 <= first_epoch <= epochs."
            )
        batches = stream.epochs_of_batches(
            self.train_examples,
            self.augmentation,
            self.normalize,
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            batch_size=batch_size,
            seed=seed,
            epochs=range(first_epoch, epochs),
        )
        return batches.apply(
            tf.data.experimental.assert_cardinality(
                steps * (epochs - first_epoch)
            )
        )


@sharing.remembered
def load(dataset_config: Any) -> Splits:
    """Loads the data set of a config; inside of `shared`, once.

    A set that fits in memory is read here; a larger one is streamed.
    Subsets (`num_train`, `num_test`) do not depend on the seed of a run, so
    that models of different seeds are comparable.

    Args:
      dataset_config: the fields of `config.dataset`.

    Raises:
      errors.ConfigError: a field has a value that cannot be used.
      errors.DataError: the data set is missing, malformed or has an empty
        class.
    """
    _require_fields(dataset_config)
    return _load(dataset_config)


def _require_fields(dataset_config: Any) -> None:
    """Raises a ConfigError unless it is the `dataset` part of a config."""
    if (
        not isinstance(dataset_config, ml_collections.ConfigDict)
        or "num_train" not in dataset_config
    ):
        raise errors.ConfigError(
            "the fields of a data set are missing, there is "
            f"{type(dataset_config).__name__}: pass the part `dataset` of a "
            "config, such as qgen_tf.config.default_config().dataset."
        )
    config.check_values(ml_collections.ConfigDict({"dataset": dataset_config}))


def _load(dataset_config: Any) -> Splits:
    augment = augmentation.Augmentation(
        random_resized_crop=dataset_config.random_resized_crop,
        crop_padding=dataset_config.crop_padding,
        flip=dataset_config.flip,
        rand_augment=dataset_config.rand_augment,
        mixup=dataset_config.mixup,
        cutmix=dataset_config.cutmix,
    )
    source = datasets.source(dataset_config.name)
    stored = _chosen(source, "train", dataset_config)
    train = _prepared(stored, source, dataset_config)
    test = _prepared(
        _chosen(source, "test", dataset_config), source, dataset_config
    )
    if train.image_shape != test.image_shape:
        raise errors.DataError(
            f"images of {train.name!r} have shape {train.image_shape}, those "
            f"of {test.name!r} {test.image_shape}: set dataset.image_size to "
            "resize them to one."
        )
    augment.check(train.image_shape)
    preprocessing.check_normalization(
        dataset_config.normalization, train.image_shape[-1]
    )
    normalize = preprocessing.normalizer(
        dataset_config.name, dataset_config.normalization
    )
    return Splits(
        name=dataset_config.name,
        num_classes=len(source.class_names),
        image_shape=train.image_shape,
        class_names=source.class_names,
        num_train=train.size,
        num_test=test.size,
        train=_normalized(train, normalize),
        test=_normalized(test, normalize),
        train_examples=stored if augment.random_resized_crop else train,
        test_examples=test,
        augmentation=augment,
        normalize=normalize,
    )


def _chosen(
    source: sources.Source, split: str, dataset_config: Any
) -> examples.Examples:
    field = f"num_{split}"
    return examples.subset(
        getattr(source, split), dataset_config[field], f"dataset.{field}"
    )


def _prepared(
    chosen: examples.Examples, source: sources.Source, dataset_config: Any
) -> examples.Examples:
    prepared = preprocessing.resized(
        chosen, dataset_config.image_size, dataset_config.center_crop
    )
    examples.check_classes(prepared, source.class_names)
    return prepared


def _normalized(
    part: examples.Examples, normalize: Callable[[tf.Tensor], tf.Tensor]
) -> tf.data.Dataset:
    # of many at once: a call for each image costs more than the arithmetic
    return (
        part.images()
        .batch(_AT_ONCE)
        .map(lambda images, labels: (normalize(images), labels))
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(part.size))
        .prefetch(tf.data.AUTOTUNE)
    )
