"""What each augmentation does to pixels and labels, and what it may not."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.data import augmentation, examples, preprocessing

_OFF = {
    "random_resized_crop": 0.0,
    "crop_padding": 0,
    "flip": False,
    "rand_augment": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
_STATEFUL_DRAWS = ("Random", "StatefulRandom", "StatefulUniform", "Rng")


def _augmentation(**fields):
    return augmentation.Augmentation(**(_OFF | fields))


def _batch(size=64, side=8, channels=3, classes=10):
    random = np.random.RandomState(0)
    images = random.randint(1, 256, (size, side, side, channels))
    labels = tf.one_hot(random.randint(0, classes, size), classes)
    return tf.constant(images, tf.float32), labels


def _augmented(batch, seed=(1, 2), **fields):
    images, labels = batch
    batch_fn = _augmentation(**fields).batch_fn(tuple(images.shape[1:]))
    images, labels = batch_fn(images, labels, tf.constant(seed))
    return images.numpy(), labels.numpy()


def test_off_changes_nothing():
    images, labels = _batch()
    got_images, got_labels = _augmented((images, labels))
    np.testing.assert_array_equal(got_images, images)
    np.testing.assert_array_equal(got_labels, labels)
    image_fn = _augmentation().image_fn()
    np.testing.assert_array_equal(image_fn(images[0], None), images[0])


def test_crop_takes_every_window_of_the_padded_image():
    padding, side, size = 1, 8, 400
    image = _batch(size=1, side=side)[0][0].numpy()
    images = tf.constant(np.tile(image, (size, 1, 1, 1)))
    got, _ = _augmented(
        (images, tf.one_hot([0] * size, 2)), crop_padding=padding
    )
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    counts = []
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            window = padded[top : top + side, left : left + side]
            counts.append(int((got == window).all(axis=(1, 2, 3)).sum()))
    assert sum(counts) == size
    assert min(counts) > size / 9 / 2  # uniform: 44 expected, sd 6.3


def test_flip_mirrors_about_half():
    images, labels = _batch(size=400)
    got, got_labels = _augmented((images, labels), flip=True)
    same = (got == images.numpy()).all(axis=(1, 2, 3))
    mirrored = (got == images.numpy()[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 140 < mirrored.sum() < 260  # 200 expected, sd 10
    np.testing.assert_array_equal(got_labels, labels)


def test_crops_are_windows_that_are_resized_and_half_of_them_mirrored():
    rows = np.arange(40, dtype=np.uint8)[:, None, None]
    columns = 3 * np.arange(60, dtype=np.uint8)[None, :, None]
    image = np.concatenate(np.broadcast_arrays(rows, columns), axis=-1)
    stored = examples.in_memory("one", image[None], np.zeros(1))
    read = _augmentation(random_resized_crop=0.2, flip=True).read_fn(
        stored, (8, 8, 2)
    )
    mirrored = 0
    for seed in range(60):
        got = read(0, tf.constant([seed, 0])).numpy().astype(int)
        assert got.shape == (8, 8, 2)
        assert (np.diff(got[..., 0], axis=0) > 0).all()  # rows stay in order
        slopes = np.sign(np.diff(got[..., 1], axis=1))
        assert (slopes == slopes[0, 0]).all()
        mirrored += slopes[0, 0] < 0
        heights, widths = np.ptp(got[:, 0, 0]), np.ptp(got[0, :, 1]) / 3
        # the outermost of eight pixels are 7 / 8 of a window apart
        assert 0.2 * 2400 * 0.7 < heights * widths <= 2400
    assert 15 < mirrored < 45  # 30 expected, sd 3.9
    plain = _augmentation(random_resized_crop=1.0).read_fn(stored, (8, 8, 2))
    np.testing.assert_array_equal(  # no window has all of a 3:2 image
        plain(0, tf.constant([0, 0])),
        preprocessing.resize(tf.constant(image), (8, 8, 2)),
    )


def test_mixup_mixes_labels_as_it_mixes_pixels():
    size, classes = 32, 32
    values = np.linspace(0, 255, size, dtype=np.float32)
    images = tf.constant(np.tile(values[:, None, None, None], (1, 4, 4, 1)))
    got, labels = _augmented((images, tf.eye(classes)), mixup=1.0)
    # every pixel is the mean of the images' values under the label
    np.testing.assert_allclose(got[:, 0, 0, 0], labels @ values, atol=1e-3)
    assert (np.sum(labels > 1e-6, axis=1) == 2).sum() > size / 2


def test_cutmix_labels_are_the_share_of_pixels():
    size, side = 64, 8
    values = np.arange(size, dtype=np.float32)
    images = np.tile(values[:, None, None, None], (1, side, side, 3))
    got, labels = _augmented((tf.constant(images), tf.eye(size)), cutmix=1.0)
    for image, label in zip(got[..., 0], labels, strict=True):
        share = [(image == value).mean() for value in values]
        np.testing.assert_allclose(label, share, atol=1e-6)
    assert (np.sum(labels > 0, axis=1) == 2).sum() > size / 2


def test_a_batch_gets_mixup_or_cutmix():
    size = 16
    values = np.linspace(0, 255, size, dtype=np.float32)
    images = np.tile(values[:, None, None, None], (1, 8, 8, 1))
    batch_fn = _augmentation(mixup=1.0, cutmix=1.0).batch_fn((8, 8, 1))
    is_cutmix = []
    for seed in range(24):
        got, labels = batch_fn(
            tf.constant(images), tf.eye(size), tf.constant([seed, 0])
        )
        is_cutmix.append(bool(np.isin(got, values).all()))
        np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-5)
    assert 4 < sum(is_cutmix) < 20  # 12 expected, sd 2.4


def test_mixing_a_single_image_leaves_it():
    images, labels = _batch(size=1)
    for name in ("mixup", "cutmix"):
        got, got_labels = _augmented((images, labels), **{name: 0.4})
        np.testing.assert_allclose(got, images, atol=1e-3)
        np.testing.assert_allclose(got_labels, labels, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_keeps_the_range_and_depends_on_the_seed(channels):
    image = _batch(size=1, side=16, channels=channels)[0][0]
    image_fn = _augmentation(rand_augment=0.5).image_fn()
    got = [image_fn(image, tf.constant([seed, 0])) for seed in range(12)]
    for one in got:
        assert one.shape == image.shape and one.dtype == tf.float32
        assert 0 <= np.min(one) and np.max(one) <= 255
    assert len({one.numpy().tobytes() for one in got}) > 8
    again = image_fn(image, tf.constant([3, 0]))
    np.testing.assert_array_equal(again, got[3])


def test_layers_stay_float32_under_mixed_precision():
    batch = _batch(side=16)
    fields = {"crop_padding": 2, "flip": True, "mixup": 0.4}
    expected = _augmented(batch, **fields)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        got = _augmented(batch, **fields)
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert got[0].dtype == np.float32
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_stateful_draw_is_left_in_the_graph():
    augment = _augmentation(
        crop_padding=2, flip=True, rand_augment=0.5, mixup=0.2, cutmix=1.0
    )
    image_fn, batch_fn = augment.image_fn(), augment.batch_fn((16, 16, 3))

    @tf.function
    def both(images, labels, seed):
        image = image_fn(images[0], seed)
        images, labels = batch_fn(images, labels, seed)
        return image, images, labels

    graph = both.get_concrete_function(
        *_batch(side=16), tf.constant([0, 0])
    ).graph.as_graph_def()
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes.extend(function.node_def)
    ops = {node.op for node in nodes}
    assert any(op.startswith("StatelessRandom") for op in ops)
    assert not {op for op in ops if op.startswith(_STATEFUL_DRAWS)}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"random_resized_crop": 1.1}, "dataset.random_resized_crop"),
        ({"crop_padding": -1}, "dataset.crop_padding"),
        ({"crop_padding": 8}, "dataset.crop_padding"),
        ({"rand_augment": -0.1}, "dataset.rand_augment"),
        ({"rand_augment": 1.5}, "dataset.rand_augment"),
        ({"rand_augment": float("nan")}, "dataset.rand_augment"),
        ({"mixup": -0.2}, "dataset.mixup"),
        ({"mixup": 0.01}, "dataset.mixup"),
        ({"cutmix": float("inf")}, "dataset.cutmix"),
        ({"cutmix": float("nan")}, "dataset.cutmix"),
    ],
)
def test_values_that_cannot_be_used(fields, field):
    with pytest.raises(errors.ConfigError, match=f"^{field} is .*: set it"):
        _augmentation(**fields).check((8, 8, 3))


def test_rand_augment_of_other_channels_is_refused():
    with pytest.raises(errors.ConfigError, match="1 or 3 channels"):
        _augmentation(rand_augment=0.5).check((8, 8, 4))
    _augmentation(crop_padding=7, mixup=0.1).check((8, 8, 4))
