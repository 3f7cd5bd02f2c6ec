"""How data sets are read."""

from __future__ import annotations

import tensorflow as tf


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a data set that is read without tf.data's tuner.

    The tuner is a thread, for which the end of each reading waits. It may miss
    that it is told to stop (the cancellation counts only after it was woken, as
    of TensorFlow 2.21) and sleep on, for as long as half of the time that was
    read, up to a minute.

    The elements stay the same. What is left to the tuner (`tf.data.AUTOTUNE`)
    runs on all cores, at most 16.

    Args:
      dataset: returned as it is if it says so already: to prepare a data set
        for reading takes some milliseconds, and is then done once.
    """
    if dataset.options().autotune.enabled is False:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
