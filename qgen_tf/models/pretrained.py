"""Weights from files, for the models of here."""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib

import numpy as np
import safetensors
import safetensors.numpy
from absl import logging

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import published

_HEAD = "head."  # prefix of the tensors of the last layer

# what the readers raise for files that are cut, of another kind or pickled
_DAMAGE = (
    EOFError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_pretrained(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Gives a model the weights of a file.

    `.weights.h5` is what Keras wrote of the same model, whichever it is.
    `.safetensors` and `.npz` hold the tensors of a ViT, DeiT or Swin under the
    names of DeiT, Swin's authors or timm. From those,

    - the query gets its part of `qkv`, times (channels / heads)**-0.5;
    - the channels that Swin merges are put in the order of this model;
    - position embeddings of images of another size are interpolated (bicubic,
      with antialiasing, as timm does);
    - a head of another number of classes, or none at all, is passed over: the
      layer "logits" keeps the weights it has, and a warning is logged.

    Args:
      model: a float model; it is left as it is if an error is raised.
      path: of the file.

    Raises:
      ModelError: the file is missing, damaged or pickled, it lacks a tensor or
        has one too many, or a tensor has another shape.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.ModelError(
            f"there is no file of weights {path}: give the path of one."
        )
    if path.name.endswith(".weights.h5"):
        _load_keras(model, path)
        return
    tensors = published.one_naming(_read(path))
    sources = published.sources(model)
    if _has_other_head(model, tensors):
        logging.warning(
            "%s has no head of %d classes: the logits of %s stay as they are.",
            *(path, model.output.shape[-1], model.name),
        )
        sources = [s for s in sources if not s.name.startswith(_HEAD)]
        tensors = {n: t for n, t in tensors.items() if not n.startswith(_HEAD)}
    _check_names(path, model, {s.name for s in sources}, set(tensors))
    values = [_value(path, s, tensors[s.name]) for s in sources]
    for source, value in zip(sources, values, strict=True):
        source.variable.assign(value)


def _load_keras(model: keras.Model, path: pathlib.Path) -> None:
    before = model.get_weights()
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        model.set_weights(before)
        raise errors.ModelError(
            f"{path} cannot be loaded into {model.name} ({error}): give the "
            "weights of the same model with the same arguments."
        ) from error


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file, float32; none of it is run."""
    if path.suffix not in (".npz", ".safetensors"):
        raise errors.ModelError(
            f"{path} is no .safetensors, .npz or .weights.h5 file, and a "
            "pickled one could run code: convert it, where you trust it, with "
            "`safetensors.torch.save_file(torch.load(path, weights_only=True), "
            "'weights.safetensors')`, of the state dict alone."
        )
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.numpy.load_file(path)
        else:
            with (
                path.open("rb") as stream,
                np.lib.npyio.NpzFile(stream, allow_pickle=False) as file,
            ):
                tensors = dict(file)
        return {
            name: np.asarray(tensor).astype(np.float32, casting="same_kind")
            for name, tensor in tensors.items()
            if not name.endswith(published.BUFFERS)
        }
    except _DAMAGE as error:
        raise errors.ModelError(
            f"{path} cannot be read as a {path.suffix} file of numbers "
            f"({error}): get it again."
        ) from error


def _has_other_head(model: keras.Model, tensors: dict[str, np.ndarray]) -> bool:
    classes = (model.output.shape[-1],)
    heads = [t for name, t in tensors.items() if name.startswith(_HEAD)]
    return not heads or any(head.shape[:1] != classes for head in heads)


def _check_names(
    path: pathlib.Path, model: keras.Model, wanted: set[str], found: set[str]
) -> None:
    for names, problem in (
        (wanted - found, f"lacks what {model.name} needs"),
        (found - wanted, f"has what {model.name} has no place for"),
    ):
        if names:
            raise errors.ModelError(
                f"{path} {problem}, {len(names)} tensors such as "
                f"{sorted(names)[:4]}: give weights of the same kind of model "
                "and of the same depth."
            )


def _value(
    path: pathlib.Path, source: published.Source, tensor: np.ndarray
) -> np.ndarray:
    """Returns the value of the variable of a source."""
    try:
        if not source.fits(tensor):
            raise ValueError(f"expected {source.shape}")
        return source.convert(tensor)
    except ValueError as error:
        raise errors.ModelError(
            f"{path} has {source.name} of shape {tensor.shape}, which does not "
            f"fit ({error}): build the model with the arguments of the "
            "published one."
        ) from error
