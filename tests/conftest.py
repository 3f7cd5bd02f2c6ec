"""Settings that every test shares; read before TensorFlow is imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# as many workers as cores (`-n 2` on two): one compute thread for each
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import gc
import random

import numpy as np
import pytest

from qgen_tf.compat import keras  # legacy, before a test imports TensorFlow

# Graphs are many objects that live long. To look for garbage among all of them
# as often as Python does takes a twentieth of the time.
gc.set_threshold(20_000, 10, 10)


def pytest_addoption(parser):
    """`--full` takes hours."""
    parser.addoption(
        "--full",
        action="store_true",
        help="run every quantizer at every number of bits on every layer, "
        "not a covering selection of them, and the tests that take minutes",
    )


def pytest_runtest_setup(item):
    """Skips what takes minutes, unless it is asked for."""
    if item.get_closest_marker("full") and not item.config.getoption("full"):
        pytest.skip("takes minutes: run with --full")


@pytest.fixture(autouse=True)
def _seed():
    """Seeds every global generator; a test may still pass its own seed."""
    random.seed(0)
    np.random.seed(0)
    keras.utils.set_random_seed(0)


def pytest_collection_modifyitems(items):
    """Starts with the files that take longest, so that no worker idles."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Leaves what has been imported out of every search for garbage."""
    gc.freeze()
