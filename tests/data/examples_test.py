"""Fixed subsets, and no class without an example."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from qgen_tf import errors
from qgen_tf.data import examples


def _examples(size=20, classes=4):
    images = np.arange(size, dtype=np.uint8).reshape(size, 1, 1, 1)
    labels = np.arange(size, dtype=np.int32) % classes
    return examples.in_memory("made up", images, labels)


def _values(stored):
    return [int(image[0, 0, 0]) for image, _ in stored.images()]


def test_in_memory_examples_keep_pixels_labels_and_order():
    stored = _examples()
    assert stored.image_shape == (1, 1, 1)
    assert _values(stored) == list(range(20))
    labels = [int(label) for _, label in stored.images()]
    np.testing.assert_array_equal(labels, stored.labels)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20))
def test_subsets_are_fixed_ordered_and_nested(small, large):
    small, large = sorted((small, large))
    np.random.seed(small)  # a global seed has no part in it
    chosen = examples.subset(_examples(), large, "f")
    values = _values(chosen)
    assert chosen.size == len(values) == len(set(values)) == large
    assert values == sorted(values)
    np.testing.assert_array_equal(chosen.labels, np.array(values) % 4)
    assert set(_values(examples.subset(_examples(), small, "f"))) <= set(values)


def test_a_subset_is_random():
    values = _values(examples.subset(_examples(200), 100, "f"))
    assert 30 < sum(value < 100 for value in values) < 70


def test_zero_is_all():
    stored = _examples()
    assert examples.subset(stored, 0, "f") is stored


@pytest.mark.parametrize("count", [-1, 21])
def test_impossible_subsets(count):
    with pytest.raises(
        errors.ConfigError, match=f"dataset.num_test is {count} but .*20"
    ):
        examples.subset(_examples(), count, "dataset.num_test")


def test_empty_class_is_named():
    stored = _examples(3)
    names = ("ant", "bee", "cat", "dog")
    with pytest.raises(errors.DataError, match="1 of 4 classes .*'dog'"):
        examples.check_classes(stored, names)
    examples.check_classes(stored, names[:3])


def test_labels_that_are_not_read_are_not_checked():
    records = tf.data.Dataset.range(0)
    stored = examples.Examples("streamed", records, tf.identity, 0, 1)
    examples.check_classes(stored, ("ant",))
