"""Three views of a data set, and the fields of its config."""

import numpy as np
import pytest

from qgen_tf import config, data, errors, reading
from qgen_tf.data import preprocessing
from tests.data.datasets_test import needs_cifar10, write_image


def dataset_config(**fields):
    settings = config.default_config().dataset
    settings.update(fields)
    return settings


def _arrays(dataset):
    pairs = list(dataset.as_numpy_iterator())
    return tuple(np.stack(part) for part in zip(*pairs, strict=True))


@pytest.fixture(scope="module")
def digits():
    return data.load(dataset_config())


def test_data_sets_are_listed():
    assert {"digits", "cifar10", "cifar100"} <= set(data.DATASETS)


def test_digits(digits):
    assert digits.name == "digits"
    assert digits.num_classes == len(digits.class_names) == 10
    assert digits.image_shape == (16, 16, 1)
    assert (digits.num_train, digits.num_test) == (1347, 450)
    for view, size in ((digits.train, 1347), (digits.test, 450)):
        assert int(view.cardinality()) == size
        images, labels = _arrays(view)
        assert images.shape == (size, 16, 16, 1) and labels.shape == (size,)
        assert images.dtype == np.float32 and labels.dtype == np.int32
        assert -1 <= images.min() < -0.9 and 0.9 < images.max() <= 1
        assert set(labels) == set(range(10))


def test_views_are_read_without_the_tuner(digits):
    for view in (digits.train, digits.test):
        batches = view.take(100).batch(8).cache()
        assert reading.untuned(batches) is batches


def test_fixed_order_without_augmentation(digits):
    augmented = data.load(dataset_config(flip=True, crop_padding=3, mixup=0.4))
    for one, other in (
        (digits.train, augmented.train),
        (digits.test, augmented.test),
    ):
        for first, second in zip(_arrays(one), _arrays(other), strict=True):
            np.testing.assert_array_equal(first, second)


def test_subset_is_always_the_same_and_part_of_the_whole(digits):
    fields = dataset_config(num_train=120, num_test=60)
    one, other = data.load(fields), data.load(fields)
    assert (one.num_train, one.num_test) == (120, 60)
    images, labels = _arrays(one.train)
    np.testing.assert_array_equal(images, _arrays(other.train)[0])
    whole = {image.tobytes() for image in _arrays(digits.train)[0]}
    assert len(images) == 120
    assert {image.tobytes() for image in images} <= whole
    assert set(labels) == set(range(10))


def test_a_data_set_is_loaded_once_where_it_is_shared():
    with data.shared():
        one = data.load(dataset_config())
        with data.shared():
            assert data.load(dataset_config()) is one
        other = data.load(dataset_config(num_test=50))
        assert other.num_test == 50
    assert data.load(dataset_config()) is not one


def test_image_size_zero_keeps_the_size():
    splits = data.load(dataset_config(image_size=0))
    assert splits.image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("batch_size", "steps"), [(1, 1347), (64, 22), (449, 3), (5000, 1)]
)
def test_steps_per_epoch(digits, batch_size, steps):
    assert digits.steps_per_epoch(batch_size) == steps


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"num_train": -1}, errors.ConfigError, "dataset.num_train is -1"),
        ({"num_test": 451}, errors.ConfigError, "dataset.num_test is 451"),
        ({"num_train": 5}, errors.DataError, "'digits train' has no example"),
        ({"image_size": -8}, errors.ConfigError, "dataset.image_size is -8"),
        ({"crop_padding": 16}, errors.ConfigError, "dataset.crop_padding is"),
        ({"mixup": -1.0}, errors.ConfigError, "dataset.mixup is -1.0"),
        ({"name": "no_such_set"}, errors.DataError, "is unknown"),
    ],
)
def test_fields_that_cannot_be_used(fields, error, message):
    with pytest.raises(error, match=message):
        data.load(dataset_config(**fields))


@pytest.mark.parametrize(
    "given", [None, "digits", {}, [], config.default_config()]
)
def test_what_is_no_part_of_a_config(given):
    message = f"there is {type(given).__name__}: pass the part `dataset`"
    with pytest.raises(errors.ConfigError, match=message):
        data.load(given)


def test_a_part_that_lacks_a_field():
    fields = dataset_config().unlock()
    del fields.flip
    with pytest.raises(errors.ConfigError, match="dataset.flip is missing"):
        data.load(fields)


@pytest.mark.parametrize("wrong", [None, "a", []])
def test_settings_of_the_wrong_type(digits, wrong):
    good = {"batch_size": 32, "seed": 0, "epochs": 1, "first_epoch": 0}
    for name in good:
        message = f"training_stream has {name}=.*: write a whole number"
        with pytest.raises(errors.ConfigError, match=message):
            digits.training_stream(**{**good, name: wrong})
    for settings in (
        {"kind": "contrast", "severity": 1, "seed": wrong},
        {"kind": [wrong], "severity": 1},
        {"kind": "contrast", "severity": wrong},
    ):
        with pytest.raises(errors.ConfigError, match="corrupted has .*: write"):
            digits.corrupted_test(**settings)


def test_image_folder_in_memory_and_streamed(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            for index in range(3):
                path = tmp_path / split / name / f"{index}.png"
                write_image(path, 5 + index, 9)
    fields = dataset_config(name=f"image_folder:{tmp_path}", image_size=8)
    held = data.load(fields)
    monkeypatch.setattr(preprocessing, "MAX_BYTES_IN_MEMORY", 0)
    streamed = data.load(fields)
    assert held.image_shape == streamed.image_shape == (8, 8, 3)
    for one, other in zip(
        _arrays(held.train), _arrays(streamed.train), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_splits_of_different_size_need_an_image_size(tmp_path):
    write_image(tmp_path / "train" / "ant" / "0.png", 5, 5)
    write_image(tmp_path / "test" / "ant" / "0.png", 6, 6)
    fields = dataset_config(name=f"image_folder:{tmp_path}", image_size=0)
    with pytest.raises(errors.DataError, match="set dataset.image_size"):
        data.load(fields)


@needs_cifar10
def test_cifar10_is_standardized():
    fields = dataset_config(
        name="cifar10", image_size=32, num_train=2000, num_test=200
    )
    splits = data.load(fields)
    images, _ = _arrays(splits.train)
    assert images.shape == (2000, 32, 32, 3)
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=0.05)
