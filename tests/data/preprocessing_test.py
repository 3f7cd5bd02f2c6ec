"""Resizing, normalization, and what is said of images at fault."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from qgen_tf import errors
from qgen_tf.data import examples, preprocessing


def _encoded(images):
    """Examples stored as PNG, as a folder of images has them."""
    records = {
        "image": [tf.io.encode_png(image).numpy() for image in images],
        "image/filename": [f"{index}.png" for index in range(len(images))],
    }
    labels = np.zeros(len(images), np.int32)
    return examples.Examples(
        name="folder train",
        records=tf.data.Dataset.from_tensor_slices((records, labels)),
        decode=lambda record: tf.io.decode_image(
            record["image"], channels=3, expand_animations=False
        ),
        size=len(images),
        shuffle_buffer=len(images),
    )


def _image(height, width, channels=3, seed=0):
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (height, width, channels)).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.integers(1, 20),
    st.integers(0, 255),
)
def test_resize_keeps_a_flat_image_flat(height, width, channels, side, value):
    image = tf.fill([height, width, channels], tf.constant(value, tf.uint8))
    shape = (side, side, channels)
    got = preprocessing.resize(image, shape)
    assert got.dtype == tf.uint8 and tuple(got.shape) == shape
    np.testing.assert_array_equal(got, np.full(shape, value))


def test_resize_to_the_same_shape_is_the_identity():
    image = _image(5, 7)
    got = preprocessing.resize(tf.constant(image), (5, 7, 3))
    np.testing.assert_array_equal(got, image)


def test_resize_skips_no_pixel_when_it_shrinks():
    image = np.zeros((16, 16, 1), np.uint8)
    image[::2] = 255  # rows that a plain bilinear resize would alias
    got = preprocessing.resize(tf.constant(image), (4, 4, 1)).numpy()
    assert np.abs(got.astype(float) - 127.5).max() < 32


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet2012"])
def test_known_channels_are_standardized(name):
    mean, deviation = preprocessing.CHANNEL_STATISTICS[name]
    normalize = preprocessing.normalizer(name)
    mean, deviation = np.array(mean), np.array(deviation)
    np.testing.assert_allclose(normalize(mean * 255), np.zeros(3), atol=1e-5)
    one_up = normalize((mean + deviation) * 255)
    np.testing.assert_allclose(one_up, np.ones(3), atol=1e-5)


def test_other_pixels_are_mapped_to_minus_one_to_one():
    for name in ("digits", "image_folder:cifar10", "mnist"):
        got = preprocessing.normalizer(name)(tf.constant([[0], [255]]))
        np.testing.assert_array_equal(got, [[-1.0], [1.0]])


@pytest.mark.parametrize(
    ("normalization", "pixels", "expected"),
    [
        ("imagenet", [123.675, 116.28, 161.925], [0, 0, 1.0 / 0.225 * 0.229]),
        ("symmetric", [0, 127.5, 255], [-1, 0, 1]),
        # what keras.applications.imagenet_utils subtracts, in its mode caffe
        ("caffe", [0, 116.779, 255], [-123.68, 0, 151.061]),
    ],
)
def test_normalization_of_published_weights(normalization, pixels, expected):
    for name in ("cifar10", "image_folder:x"):
        normalize = preprocessing.normalizer(name, normalization)
        got = normalize(tf.constant(pixels, tf.float32))
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("normalization", "channels", "message"),
    [
        ("torch", 3, "'torch' is unknown: choose one of .'auto', 'imagenet'"),
        ("imagenet", 1, "'imagenet' is of 3 channels and the images have 1"),
    ],
)
def test_normalization_that_is_none(normalization, channels, message):
    with pytest.raises(errors.ConfigError, match=message):
        preprocessing.check_normalization(normalization, channels)
    for known in ("auto", "symmetric"):
        preprocessing.check_normalization(known, channels)


def test_config_and_version_in_a_name_do_not_matter():
    plain = preprocessing.normalizer("cifar10")(tf.zeros([3]))
    versioned = preprocessing.normalizer("cifar10:3.0.2")(tf.zeros([3]))
    np.testing.assert_array_equal(plain, versioned)


@pytest.mark.parametrize("max_bytes", [0, 2**30])
def test_resized_examples_in_memory_and_streamed(monkeypatch, max_bytes):
    monkeypatch.setattr(preprocessing, "MAX_BYTES_IN_MEMORY", max_bytes)
    images = [_image(5 + index, 9, seed=index) for index in range(4)]
    stored = preprocessing.resized(_encoded(images), 8)
    assert stored.image_shape == (8, 8, 3)
    assert (stored.labels is None) == (max_bytes == 0)
    got = list(stored.images())
    assert len(got) == stored.size == 4
    for (image, label), original in zip(got, images, strict=True):
        expected = preprocessing.resize(tf.constant(original), (8, 8, 3))
        np.testing.assert_array_equal(image, expected)
        assert image.dtype == tf.uint8 and label.dtype == tf.int32


@pytest.mark.parametrize("max_bytes", [0, 2**30])
def test_center_crops_keep_proportions(monkeypatch, max_bytes):
    monkeypatch.setattr(preprocessing, "MAX_BYTES_IN_MEMORY", max_bytes)
    images = [_image(16, 24), _image(20, 16, seed=1)]
    stored = preprocessing.resized(_encoded(images), 6, center_crop=0.75)
    assert stored.image_shape == (6, 6, 3)
    windows = [images[0][2:14, 6:18], images[1][4:16, 2:14]]
    for (image, _), window in zip(stored.images(), windows, strict=True):
        expected = preprocessing.resize(tf.constant(window), (6, 6, 3))
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("image_size", "center_crop", "message"),
    [(0, 0.5, "center_crop is 0.5 and .*image_size is 0"), (8, 2.0, "is 2.0")],
)
def test_center_crops_that_cannot_be(image_size, center_crop, message):
    with pytest.raises(errors.ConfigError, match=message):
        preprocessing.resized(_encoded([_image(5, 7)]), image_size, center_crop)


def test_size_is_kept_when_all_images_have_it():
    images = [_image(5, 7, seed=index) for index in range(3)]
    stored = preprocessing.resized(_encoded(images), 0)
    for (image, _), original in zip(stored.images(), images, strict=True):
        np.testing.assert_array_equal(image, original)


def test_several_sizes_need_an_image_size():
    stored = _encoded([_image(5, 7), _image(5, 7), _image(6, 7)])
    with pytest.raises(
        errors.DataError, match=r"\(6, 7, 3\) after \(5, 7, 3\).*image_size"
    ):
        preprocessing.resized(stored, 0)


def test_negative_image_size_is_refused():
    with pytest.raises(errors.ConfigError, match="dataset.image_size is -1"):
        preprocessing.resized(_encoded([_image(5, 7)]), -1)


@pytest.mark.parametrize("place", [0, 2])
def test_unreadable_image_is_named(place):
    stored = _encoded([_image(5, 7, seed=index) for index in range(4)])
    records = [
        (record | {"image": b"no image"}, label)
        if index == place
        else (record, label)
        for index, (record, label) in enumerate(
            stored.records.as_numpy_iterator()
        )
    ]
    stored = examples.Examples(
        name=stored.name,
        records=tf.data.Dataset.from_generator(
            lambda: iter(records),
            output_signature=stored.records.element_spec,
        ),
        decode=stored.decode,
        size=stored.size,
        shuffle_buffer=stored.size,
    )
    with pytest.raises(errors.DataError, match=f"^{place}.png of .*readable"):
        preprocessing.resized(stored, 8)


def test_fewer_examples_than_announced():
    stored = _encoded([_image(5, 7)] * 3)
    short = examples.Examples(
        stored.name, stored.records.take(2), stored.decode, 3, 3
    )
    with pytest.raises(errors.DataError, match="has 2 examples instead of 3"):
        preprocessing.resized(short, 8)
