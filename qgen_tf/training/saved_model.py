"""A trained model in its run directory: weights, and the config to rebuild."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import ml_collections

from qgen_tf import errors, models, sharing
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme, quantize_model
from qgen_tf.training.run_directory import (
    TRAINED_FILE,
    RunDirectory,
    atomic_path,
    is_quantized,
)

# more than any data set here has; what is larger would fill the memory
_MOST_PIXELS = 4096
_MOST_CHANNELS = 64
_MOST_CLASSES = 100_000


def scheme(config: ml_collections.ConfigDict) -> BitScheme:
    """Returns how the model of a config is quantized."""
    fields = (field.name for field in dataclasses.fields(BitScheme))
    return BitScheme(**{name: config.quantization[name] for name in fields})


def save_weights(model: keras.Model, run: RunDirectory, name: str) -> None:
    """Writes the weights of `model` into a run, whole or not at all."""
    # A view that is not compiled: optimizer and metrics are not of the model.
    weights_only = keras.Model(model.inputs, model.outputs)
    # with as much again for what HDF5 writes around them
    num_bytes = 2**20 + 2 * sum(
        weight.dtype.size * weight.shape.num_elements()
        for weight in weights_only.weights
    )
    with atomic_path(run.path / name, num_bytes=num_bytes) as target:
        weights_only.save_weights(target)


def digests(run: RunDirectory) -> dict[str, str]:
    """Returns name -> SHA-256 of the files of weights of a run.

    HDF5 does not notice a bit that a disk has lost.
    """
    return {
        path.name: _digest(path)
        for path in sorted(run.path.glob("*.weights.h5"))
    }


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@sharing.remembered
def load_model(
    run_dir: str | os.PathLike[str], *, initial: bool = False
) -> keras.Model:
    """Returns the trained model of a run directory; inside of `shared`, one.

    The model is built anew from the config and given its weights: no scope, no
    custom objects, no code from the file. Mixed precision is of training: the
    model computes in the policy that Keras has now, float32 unless it was set.

    Args:
      run_dir: written by `qgen-train`.
      initial: whether to return it as it was before the first step.

    Raises:
      RunDirectoryError: there is no finished run, or its weights are damaged.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    config = run.config
    with run.reading(TRAINED_FILE) as facts:
        image_shape, num_classes = _sizes(facts)
    model = models.build(config.model, image_shape, num_classes)
    if is_quantized(config):
        model = quantize_model(model, scheme(config))
    path = run.path / f"{'initial' if initial else 'final'}.weights.h5"
    try:
        if not path.is_file():
            raise ValueError("it is missing, or no file")
        # runs of older versions have none
        if facts.get("sha256", {}).get(path.name) not in (None, _digest(path)):
            raise ValueError("it is not what training wrote")
        _require_plain(path, model)
        model.load_weights(path)
    except Exception as error:  # HDF5 and Keras raise many kinds
        reason = " ".join(str(error).split()).rstrip(".")
        raise errors.RunDirectoryError(
            f"{path} cannot be read ({reason}): delete {run.path} and train "
            "again."
        ) from error
    return model


def _sizes(facts: dict[str, Any]) -> tuple[tuple[int, int, int], int]:
    """Returns the shape of an image and the number of classes.

    Raises:
      ValueError: these are no sizes, or ones that would fill the memory.
    """
    height, width, channels = facts["image_shape"]
    num_classes = facts["num_classes"]
    for size, most in (
        (height, _MOST_PIXELS),
        (width, _MOST_PIXELS),
        (channels, _MOST_CHANNELS),
        (num_classes, _MOST_CLASSES),
    ):
        if not isinstance(size, int) or not 0 < size <= most:
            raise ValueError(f"{size!r} is not a size from 1 to {most}")
    return (height, width, channels), num_classes


def _require_plain(path: pathlib.Path, model: keras.Model) -> None:
    """Raises unless all that a file asks to be read is in it, and no more.

    HDF5 files may point to other files, and say that they hold terabytes.

    Raises:
      ValueError: it has a link, or far more than the weights of the model.
      OSError: it cannot be opened.
    """
    with h5py.File(path) as file:
        num_bytes = sum(dataset.nbytes for dataset in _datasets(file))
    wanted = sum(
        weight.dtype.size * weight.shape.num_elements()
        for weight in model.weights
    )
    # that of a quantized model has weights twice, and its counters
    if num_bytes > 4 * wanted:
        raise ValueError(f"it has {num_bytes} bytes of a model of {wanted}")


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """Yields all that is in a file, and raises for a link out of it."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(item)
        elif item.external or item.is_virtual:
            raise ValueError(f"the numbers of {name!r} are in another file")
        else:
            yield item
