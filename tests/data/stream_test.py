"""An epoch of the training stream is a function of seeds and epoch alone."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import config, data, errors
from qgen_tf.data import preprocessing
from tests import forks
from tests.data.datasets_test import write_image

_ALL_ON = {
    "num_train": 100,
    "crop_padding": 2,
    "flip": True,
    "rand_augment": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
}
_STEPS = 4  # an epoch of 100 examples in batches of 32


def _load(**fields):
    settings = config.default_config().dataset
    settings.update(fields)
    return data.load(settings)


def _batches(splits, **arguments):
    arguments = {"batch_size": 32, "seed": 0, "epochs": 1} | arguments
    stream = splits.training_stream(**arguments)
    return list(stream.as_numpy_iterator())


def _equal(one, other):
    return len(one) == len(other) and all(
        np.array_equal(left, right)
        for pair in zip(one, other, strict=True)
        for left, right in zip(*pair, strict=True)
    )


def _digest(batches):
    digest = hashlib.sha256()
    for images, labels in batches:
        digest.update(images.tobytes() + labels.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def three_epochs():
    return _batches(_load(**_ALL_ON), epochs=3)


def test_batches(three_epochs):
    assert [len(images) for images, _ in three_epochs] == [32, 32, 32, 4] * 3
    for images, labels in three_epochs:
        assert images.shape[1:] == (16, 16, 1) and labels.shape[1:] == (10,)
        assert images.dtype == labels.dtype == np.float32
        assert -1 <= images.min() and images.max() <= 1
        assert labels.min() >= 0
        np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)


def test_epochs_differ(three_epochs):
    epochs = [three_epochs[i : i + _STEPS] for i in (0, _STEPS, 2 * _STEPS)]
    assert len({_digest(epoch) for epoch in epochs}) == 3


def test_a_resumed_stream_goes_on_bit_for_bit(three_epochs):
    tf.random.set_seed(0)  # the global seed has no part in it
    resumed = _batches(_load(**_ALL_ON), epochs=3, first_epoch=2)
    assert _equal(resumed, three_epochs[2 * _STEPS :])


def _print_second_epoch():
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(7)
    print(_digest(_batches(_load(**_ALL_ON), epochs=2, first_epoch=1)))


@pytest.mark.slow
def test_another_process_sees_the_same(three_epochs):
    result = forks.run(_print_second_epoch)
    assert result.returncode == 0, result.stderr
    expected = _digest(three_epochs[_STEPS : 2 * _STEPS])
    assert result.stdout.split()[-1] == expected


def test_an_epoch_holds_every_example_once():
    splits = _load(num_train=100)
    images = np.concatenate([pair[0] for pair in _batches(splits)])
    fixed = np.stack([image.numpy() for image, _ in splits.train])
    assert not np.array_equal(images, fixed)
    assert sorted(image.tobytes() for image in images) == sorted(
        image.tobytes() for image in fixed
    )


def test_labels_stay_with_their_images():
    splits = _load(num_train=100)
    label_of = {image.numpy().tobytes(): int(y) for image, y in splits.train}
    for images, labels in _batches(splits):
        for image, label in zip(images, labels, strict=True):
            np.testing.assert_array_equal(
                label, np.eye(10)[label_of[image.tobytes()]]
            )


@pytest.mark.parametrize("global_seed", [0, 1])
def test_seeds_differ_whatever_the_global_seed(global_seed):
    tf.random.set_seed(global_seed)
    fields = {"num_train": 100, "flip": True, "crop_padding": 2}
    digests = [_digest(_batches(_load(**fields), seed=seed)) for seed in (0, 1)]
    assert digests[0] != digests[1]
    tf.random.set_seed(global_seed + 5)
    assert _digest(_batches(_load(**fields), seed=1)) == digests[1]


def test_a_stream_can_be_read_twice_and_at_once():
    splits = _load(num_train=100, flip=True, crop_padding=2)
    stream = splits.training_stream(batch_size=32, seed=0, epochs=2)
    together = tf.data.Dataset.zip((stream, stream))
    for (left, _), (right, _) in together:
        np.testing.assert_array_equal(left, right)
    assert int(stream.cardinality()) == 2 * splits.steps_per_epoch(32)


def test_streamed_examples_resume_too(tmp_path, monkeypatch):
    for split, size in (("train", 12), ("test", 1)):
        for name in ("ant", "bee"):
            for index in range(size):
                write_image(tmp_path / split / name / f"{name}{index}.png")
    monkeypatch.setattr(preprocessing, "MAX_BYTES_IN_MEMORY", 0)
    fields = {"name": f"image_folder:{tmp_path}", "image_size": 8, "flip": True}
    splits = _load(**fields)
    whole = _batches(splits, epochs=3, batch_size=5)
    resumed = _batches(_load(**fields), epochs=3, first_epoch=2, batch_size=5)
    assert len(resumed) == 5 and _equal(resumed, whole[10:])
    assert not _equal(resumed, whole[5:10])


@pytest.mark.parametrize("max_bytes", [0, 2**30])
def test_crops_of_files_resume_too(tmp_path, monkeypatch, max_bytes):
    for split, size in (("train", 6), ("test", 1)):
        for name in ("ant", "bee"):
            for index in range(size):
                suffix = "png" if index % 2 else "jpg"
                write_image(
                    tmp_path / split / name / f"{name}{index}.{suffix}",
                    20 + index,
                    30,
                )
    monkeypatch.setattr(preprocessing, "MAX_BYTES_IN_MEMORY", max_bytes)
    fields = {
        "name": f"image_folder:{tmp_path}",
        "image_size": 8,
        "random_resized_crop": 0.1,
        "center_crop": 0.875,
        "num_train": 10,
    }
    splits = _load(**fields)
    whole = _batches(splits, epochs=2, batch_size=4)
    resumed = _batches(_load(**fields), epochs=2, first_epoch=1, batch_size=4)
    assert _equal(resumed, whole[3:])
    images = np.concatenate([images for images, _ in whole])
    assert images.shape == (20, 8, 8, 3)
    assert len({image.tobytes() for image in images}) == 20
    fixed = {image.numpy().tobytes() for image, _ in splits.train}
    assert len(fixed) == 10
    assert not fixed & {image.tobytes() for image in images}


def test_no_epochs_left_is_an_empty_stream():
    assert _batches(_load(num_train=100), epochs=2, first_epoch=2) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"epochs": -1},
        {"first_epoch": 2},
        {"first_epoch": -1},
    ],
)
def test_arguments_that_cannot_be_used(arguments):
    with pytest.raises(errors.ConfigError):
        _batches(_load(num_train=100), **arguments)
