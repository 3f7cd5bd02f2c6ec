"""Corrupted images, as those of ImageNet-C.

Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to
common corruptions and perturbations", arXiv 1903.12261; the functions are
those of tensorflow_datasets. Their strengths are the ones for ImageNet, also
for small images: CIFAR-10-C has weaker noise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import examples

# What needs neither opencv nor ImageMagick, and is the same for a seed. kind ->
# the package that it needs beside those of the project.
CORRUPTIONS: dict[str, str | None] = {
    "gaussian_noise": None,
    "shot_noise": None,
    "speckle_noise": None,
    "gaussian_blur": "skimage",
    "zoom_blur": None,
    "fog": None,
    "brightness": "skimage",
    "saturate": "skimage",
    "contrast": None,
    "pixelate": None,
    "jpeg_compression": None,
}
SEVERITIES = range(1, 6)

# numpy's legacy random state is one for the process
_LOCK = threading.Lock()


def check(kind: str, severity: int) -> None:
    """Raises a ConfigError unless there is such a corruption.

    Args:
      kind: a key of `CORRUPTIONS`.
      severity: 1..5.
    """
    if kind not in CORRUPTIONS:
        raise errors.ConfigError(
            f"corruption {kind!r} is unknown: choose one of {available()}."
        )
    check_severity(severity)
    if kind not in available():
        raise errors.ConfigError(
            f"corruption {kind!r} needs the package scikit-image: run "
            "`pip install scikit-image`, or choose another one."
        )


def check_severity(severity: int) -> None:
    """Raises a ConfigError unless the severity is one of 1..5."""
    if not isinstance(severity, int) or severity not in SEVERITIES:
        raise errors.ConfigError(
            f"severity is {severity}: choose one of {list(SEVERITIES)}, from "
            "weak to strong."
        )


def available() -> list[str]:
    """Returns the kinds whose packages are installed."""
    return [
        kind
        for kind, package in CORRUPTIONS.items()
        if package is None or importlib.util.find_spec(package) is not None
    ]


@errors.typed
def corrupted(
    part: examples.Examples, kind: str, *, severity: int, seed: int = 0
) -> examples.Examples:
    """Returns the examples with corrupted images, in the same order.

    What is drawn for an image depends on the seed and on its place in the
    split only. A gray image is corrupted as a colored one with three equal
    channels, of which the first is kept.

    Args:
      part: images of 1 or 3 channels, 4 pixels or more a side.
      kind: a key of `CORRUPTIONS`.
      severity: 1..5, from weak to strong.
      seed: of the noise, 0 or more.

    Raises:
      ConfigError: the kind, the severity or the seed is none, or a package is
        missing.
      DataError: the images are of another shape.
    """
    check(kind, severity)
    height, width, channels = shape = part.image_shape
    if channels not in (1, 3) or min(height, width) < 4:
        raise errors.DataError(
            f"images of {part.name!r} have shape {shape}: corruptions are made "
            "for 1 or 3 channels and 4 pixels or more a side."
        )
    corrupt = functools.partial(
        _corrupt, _function(kind), severity=severity, seed=seed
    )

    def decode(record: Any) -> tf.Tensor:
        index, stored = record
        image = tf.numpy_function(
            corrupt, [part.decode(stored), index], tf.uint8
        )
        return tf.ensure_shape(image, shape)

    return dataclasses.replace(
        part,
        name=f"{part.name}, {kind} {severity}",
        records=part.records.enumerate().map(
            lambda index, example: ((index, example[0]), example[1])
        ),
        decode=decode,
    )


def _function(kind: str) -> Callable[..., np.ndarray]:
    # the import takes a second, which data sets without corruptions save
    from tensorflow_datasets.image_classification import corruptions

    return getattr(corruptions, kind)


def _corrupt(
    function: Callable[..., np.ndarray],
    image: np.ndarray,
    index: np.int64,
    *,
    severity: int,
    seed: int,
) -> np.ndarray:
    colored = np.repeat(image, 3 // image.shape[-1], axis=-1)
    with _drawn_from(seed, int(index)):
        return function(colored, severity)[..., : image.shape[-1]]


@contextlib.contextmanager
def _drawn_from(*entropy: int) -> Iterator[None]:
    """Makes what `np.random` draws inside the block a function of `entropy`.

    The functions of tensorflow_datasets draw from the state of the process;
    it is put back at the end.
    """
    with _LOCK:
        state = np.random.get_state()
        np.random.seed(np.random.SeedSequence(entropy).generate_state(8))
        try:
            yield
        finally:
            np.random.set_state(state)
