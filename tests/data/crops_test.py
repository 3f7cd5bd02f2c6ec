"""Windows lie where they should, and hold the pixels that lie there."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import crops, examples

_SHAPE = (37, 53, 3)


def _image(shape=_SHAPE):
    random = np.random.RandomState(0)
    smooth = tf.image.resize(random.uniform(0, 255, (5, 5, 3)), shape[:2])
    return tf.cast(smooth, tf.uint8)


def _files(*contents, decode=None):
    records = tf.data.Dataset.from_tensor_slices(
        ([content.numpy() for content in contents], [0] * len(contents))
    )
    return examples.Examples(
        name="files",
        records=records,
        decode=decode
        or (lambda content: tf.io.decode_image(content, 3, tf.uint8, False)),
        size=len(contents),
        shuffle_buffer=1,
        encoded=lambda content: content,
    )


def _windows(choose_with_seed, shape, count):
    seeds = tf.stack([tf.range(count), tf.zeros([count], tf.int32)], axis=1)
    return tf.map_fn(
        lambda seed: choose_with_seed(seed)(tf.constant(shape)), seeds
    ).numpy()


@pytest.mark.parametrize(
    ("share", "shape", "window"),
    [
        # 256 of 500x375: the window of 224 / 256 of the shorter side
        (0.875, (375, 500, 3), [23, 86, 328, 328]),
        (0.875, (256, 256, 3), [16, 16, 224, 224]),
        (1.0, (20, 41, 1), [0, 10, 20, 20]),
        (0.1, (3, 3, 1), [1, 1, 1, 1]),
    ],
)
def test_center(share, shape, window):
    got = crops.center(share)(tf.constant(shape))
    np.testing.assert_array_equal(got, window)


def test_random_windows_are_inside_and_of_the_shape_that_was_asked_for():
    height, width = 300, 400
    windows = _windows(
        lambda seed: crops.random(0.25, seed), (height, width, 3), 1500
    )
    top, left, rows, columns = windows.T
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] > 0).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()
    share = rows * columns / (height * width)
    assert share.min() > 0.24 and share.max() <= 1.0
    assert share.min() < 0.27 and share.max() > 0.85
    ratio = columns / rows
    assert 0.74 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.35
    # the middle of windows is that of the image: sd of a mean 1.2 and 1.7
    assert abs((top + rows / 2).mean() - height / 2) < 6
    assert abs((left + columns / 2).mean() - width / 2) < 8
    again = _windows(
        lambda seed: crops.random(0.25, seed), (height, width, 3), 5
    )
    np.testing.assert_array_equal(again, windows[:5])


def test_the_whole_image_where_no_window_fits():
    window = crops.random(1.0, tf.constant([0, 0]))(tf.constant((10, 50, 3)))
    np.testing.assert_array_equal(window, [0, 0, 10, 50])


@pytest.mark.parametrize(
    ("kind", "encode"),
    [
        ("jpeg", lambda x: tf.io.encode_jpeg(x, chroma_downsampling=False)),
        ("gray jpeg", lambda x: tf.io.encode_jpeg(x[..., :1])),
        ("jpeg with colors of half the resolution", tf.io.encode_jpeg),
        ("png", tf.io.encode_png),
        ("no file", tf.io.encode_png),
    ],
)
def test_pixels_are_those_of_the_decoded_image(kind, encode):
    image = _image()
    stored = _files(encode(image))
    if kind == "no file":
        stored = examples.in_memory("m", image.numpy()[None], np.zeros(1))
    (record, _), *_ = stored.records
    whole = stored.decode(record).numpy()
    assert whole.shape == _SHAPE
    for window in ([3, 5, 20, 31], [0, 0, 37, 53], [36, 52, 1, 1]):
        top, left, height, width = window
        got = crops.decoded(
            stored, record, lambda _, w=window: tf.constant(w), channels=3
        )
        expected = whole[top : top + height, left : left + width]
        assert got.dtype == tf.uint8 and got.shape == expected.shape
        if "half" in kind:
            difference = np.abs(got.numpy().astype(int) - expected)
            assert difference.max() < 16  # at the sides
            got, expected = got[:, 1:-1], expected[:, 1:-1]
        np.testing.assert_array_equal(got, expected)


def test_a_window_of_a_jpeg_needs_no_whole_image():
    def refuse(content):
        tf.debugging.Assert(False, ["decoded"])
        return tf.io.decode_image(content, 3, tf.uint8, False)

    stored = _files(tf.io.encode_jpeg(_image()), decode=refuse)
    cropped = stored.records.map(
        lambda record, label: crops.decoded(
            stored, record, crops.center(0.5), channels=3
        )
    )
    assert next(iter(cropped)).shape == (18, 18, 3)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(errors.ConfigError, match="^dataset.x is .*share in"):
        crops.check("dataset.x", share)
    crops.check("dataset.x", 0.0)
    crops.check("dataset.x", 1.0)
