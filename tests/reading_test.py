"""Data sets that are read without tf.data's tuner."""

import numpy as np
import tensorflow as tf

from qgen_tf import reading


def _numbers():
    return tf.data.Dataset.range(8).map(
        lambda number: 2 * number, num_parallel_calls=tf.data.AUTOTUNE
    )


def test_the_elements_stay_the_same():
    dataset = reading.untuned(_numbers())
    assert dataset.options().autotune.enabled is False
    assert dataset.element_spec == _numbers().element_spec
    assert dataset.cardinality() == 8
    np.testing.assert_array_equal(
        list(dataset.as_numpy_iterator()), range(0, 16, 2)
    )


def test_other_options_are_kept():
    options = tf.data.Options()
    options.deterministic = False
    options.autotune.cpu_budget = 3
    kept = reading.untuned(_numbers().with_options(options)).options()
    assert kept.deterministic is False
    assert kept.autotune.cpu_budget == 3
    assert kept.autotune.enabled is False


def test_what_is_untuned_is_returned_as_it_is():
    batches = reading.untuned(_numbers()).batch(2).cache()
    assert reading.untuned(batches) is batches
