"""Data sets: a training stream, and both splits without augmentation."""

from qgen_tf.data.datasets import DATASETS
from qgen_tf.data.splits import Splits, load
from qgen_tf.sharing import shared

__all__ = ["DATASETS", "Splits", "load", "shared"]
