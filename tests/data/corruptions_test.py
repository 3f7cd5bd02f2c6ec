"""Corruptions: those of ImageNet-C, the same for a seed, before normalizing."""

import types

import numpy as np
import pytest

from qgen_tf import data, errors
from qgen_tf.data import corruptions, examples
from tests import tiny


def _images(channels=3, size=12, count=20):
    generator = np.random.default_rng(0)
    shape = (count, size, size, channels)
    return generator.integers(40, 216, shape, dtype=np.uint8)


def _corrupted(images, kind, *, severity=3, seed=0):
    labels = np.arange(len(images), dtype=np.int32)
    part = corruptions.corrupted(
        examples.in_memory("noise test", images, labels),
        kind,
        severity=severity,
        seed=seed,
    )
    pairs = list(part.images().as_numpy_iterator())
    np.testing.assert_array_equal([label for _, label in pairs], labels)
    found = np.stack([image for image, _ in pairs])
    assert found.dtype == np.uint8 and found.shape == images.shape
    assert part.image_shape == images.shape[1:]
    return found.astype(np.float64)


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
def test_every_kind_changes_images_and_more_so_when_severe(kind):
    images = _images(size=32, count=4)
    images = np.sort(images, axis=2)  # something to blur
    off = [
        np.abs(_corrupted(images, kind, severity=severity) - images).mean()
        for severity in corruptions.SEVERITIES
    ]
    assert min(off) > 0.5
    assert off[4] > off[0]


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
def test_gray_and_small_images_are_taken(kind):
    for severity in corruptions.SEVERITIES:
        _corrupted(_images(1, size=8, count=2), kind, severity=severity)
        _corrupted(_images(3, size=4, count=2), kind, severity=severity)


def test_contrast_by_hand():
    images = _images()
    found = _corrupted(images, "contrast", severity=5)
    mean = images.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_array_equal(
        found, np.around(mean + 0.05 * (images - mean))
    )


def test_noise_has_the_published_deviation():
    images = np.full((10, 32, 32, 3), 128, np.uint8)
    found = _corrupted(images, "gaussian_noise", severity=1)
    assert found.mean() == pytest.approx(128, abs=0.6)
    assert found.std() == pytest.approx(0.08 * 255, rel=0.02)
    found = _corrupted(images, "shot_noise", severity=2)
    assert found.std() == pytest.approx(255 * np.sqrt(128 / 255 / 25), rel=0.03)


def test_the_seed_and_the_place_decide_what_is_drawn():
    images = np.full((6, 8, 8, 3), 128, np.uint8)
    first = _corrupted(images, "gaussian_noise")
    np.testing.assert_array_equal(first, _corrupted(images, "gaussian_noise"))
    other = _corrupted(images, "gaussian_noise", seed=1)
    assert len(np.unique(np.concatenate([first, other]), axis=0)) == 12
    fewer = _corrupted(images[:2], "gaussian_noise")
    np.testing.assert_array_equal(fewer, first[:2])


def test_numpys_random_state_is_left_alone():
    np.random.seed(5)
    expected = np.random.random(4)
    np.random.seed(5)
    _corrupted(_images(count=3), "gaussian_noise")
    np.testing.assert_array_equal(np.random.random(4), expected)


def test_a_corrupted_test_set_is_normalized_like_the_test_set():
    splits = data.load(tiny.config().dataset)
    dataset = splits.corrupted_test("contrast", severity=1)
    assert len(dataset) == splits.num_test == 100
    assert dataset.element_spec == splits.test.element_spec
    pairs = zip(dataset, splits.test, strict=True)
    for (image, label), (clean, clean_label) in pairs:
        assert label == clean_label
        assert not np.array_equal(image, clean)
        # contrast keeps the mean, and rounds to 1 / 255 of a range of 2
        np.testing.assert_allclose(np.mean(image), np.mean(clean), atol=1 / 255)


@pytest.mark.parametrize(
    ("kind", "severity", "seed", "message"),
    [
        ("rain", 1, 0, "'rain' is unknown: choose one of .*'fog'"),
        ("fog", 0, 0, "severity is 0: choose one of"),
        ("fog", 6, 0, "severity is 6"),
        ("fog", 2.0, 0, "severity=2.0: write a whole number"),
        ("fog", 1, -1, "seed=-1: write a whole number, 0 or more"),
    ],
)
def test_mistakes(kind, severity, seed, message):
    with pytest.raises(errors.ConfigError, match=message):
        _corrupted(_images(), kind, severity=severity, seed=seed)


@pytest.mark.parametrize(("channels", "size"), [(4, 12), (3, 3)])
def test_images_that_are_not_taken(channels, size):
    with pytest.raises(errors.DataError, match="1 or 3 channels and 4 pixels"):
        _corrupted(_images(channels, size), "fog")


def test_a_missing_package_is_named(monkeypatch):
    absent = types.SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr(corruptions.importlib, "util", absent)
    corruptions.check("fog", 1)
    with pytest.raises(errors.ConfigError, match="pip install scikit-image"):
        corruptions.check("brightness", 1)
    # nor offered in the place of another one
    with pytest.raises(errors.ConfigError, match="'rain' is unknown") as caught:
        corruptions.check("rain", 1)
    assert "'fog'" in str(caught.value)
    assert "'brightness'" not in str(caught.value)
