"""A trained model in its run directory: weights, and the config to rebuild."""

from __future__ import annotations

import dataclasses
import os

import ml_collections

from qgen_tf import errors, models
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme, quantize_model
from qgen_tf.training.run_directory import (
    TRAINED_FILE,
    RunDirectory,
    atomic_path,
    is_quantized,
)


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


def load_model(
    run_dir: str | os.PathLike[str], *, initial: bool = False
) -> keras.Model:
    """Returns the trained model of a run directory.

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
    facts = run.read_json(TRAINED_FILE)
    model = models.build(
        config.model, tuple(facts["image_shape"]), facts["num_classes"]
    )
    if is_quantized(config):
        model = quantize_model(model, scheme(config))
    path = run.path / f"{'initial' if initial else 'final'}.weights.h5"
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise errors.RunDirectoryError(
            f"{path} cannot be read ({error}): delete {run.path} and train "
            "again."
        ) from error
    return model
