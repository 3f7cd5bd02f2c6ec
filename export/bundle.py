"""Makes the folder with which a device proves its generalization gap.

    model.tflite       the model
    train.npz          images as the model takes them, labels, and the outputs
    test.npz           that are expected
    manifest.json      what was recorded; SHA-256 and size of each file
    run_on_device.py   checks, runs and reports; needs no more than numpy and
                       ai-edge-litert
    README.txt         how

The same content gives the same bytes, in the folder and in the archive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import gzip
import json
import os
import pathlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from export import run_on_device
from export.lane import on_grid
from qgen_tf import errors
from qgen_tf.measures import Evaluation

KERNELS = "xnnpack"

_BATCH_SIZE = 64
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip file
_README = """\
A model of qgen_tf, and the examples to measure its generalization gap on.

On the device, in this folder (Python 3.9 or newer):

    python3 -m pip install numpy ai-edge-litert
    python3 run_on_device.py

Take device_result.json back to where the bundle was made, for the verdict:

    qgen-export --run_dir=RUN --compare=device_result.json
"""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle that was written, and what its model made of the examples.

    Attributes:
      archive: the .tar.gz file of it.
      identity: SHA-256 of the manifest, which a device's result repeats.
      manifest: its content.
      evaluations: split -> evaluation of the file.
    """

    archive: pathlib.Path
    identity: str
    manifest: dict[str, Any]
    evaluations: dict[str, Evaluation]


def write(
    folder: str | os.PathLike[str],
    content: bytes,
    splits: Mapping[str, tf.data.Dataset],
    *,
    facts: Mapping[str, Any],
    expand_low_bits: bool = False,
) -> Bundle:
    """Writes a bundle as a folder, and as FOLDER.tar.gz beside it.

    Both appear whole or not at all. What is there already stays, if it is the
    same, and is an error if not. Images are streamed.

    Args:
      folder: to be made.
      content: of the TensorFlow Lite file.
      splits: "train" and "test": (image, label) in fixed order, not batched,
        of known number; images float32, normalized.
      facts: what else the manifest says, of JSON types.
      expand_low_bits: whether the device stores weights of fewer than 8 bits
        in 8 before it runs the model, as is done here.

    Raises:
      ExportError: the folder is another's or cannot be written, or the runtime
        cannot run the file.
      DataError: a split is empty or of unknown number.
    """
    target = pathlib.Path(folder).resolve()
    archive = target.with_name(f"{target.name}.tar.gz")
    _require_free(target)
    with _failures_explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".writing-{target.name}-", dir=target.parent
        ) as scratch:
            new = pathlib.Path(scratch) / target.name
            new.mkdir()
            found = _write_files(new, content, splits, facts, expand_low_bits)
            _write_archive(new.with_name(archive.name), new)
            _place({new: target, new.with_name(archive.name): archive})
    return Bundle(archive, run_on_device.bundle_id(str(target)), *found)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the manifest of a bundle, all files of which were checked.

    Raises:
      ExportError: a file is missing, changed, a link or outside of the folder.
    """
    with _failures_explained(folder):
        return run_on_device.read_manifest(os.fspath(folder))


@contextlib.contextmanager
def _failures_explained(folder: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except run_on_device.BundleError as error:
        raise errors.ExportError(str(error)) from error
    except OSError as error:
        raise errors.ExportError(
            f"cannot write or read the bundle {folder}: {error.strerror}; "
            "free some space or choose another folder."
        ) from error


def _require_free(target: pathlib.Path) -> None:
    """Raises early if something that is no bundle is in the way."""
    is_bundle = (target / run_on_device.MANIFEST_FILE).is_file()
    is_empty = target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not (is_bundle or is_empty):
        raise errors.ExportError(
            f"{target} is there and is no bundle: move it away or choose "
            "another folder."
        )


def _place(targets: Mapping[pathlib.Path, pathlib.Path]) -> None:
    """Moves what is new to where it belongs, unless it is there already."""
    for new, target in targets.items():
        with contextlib.suppress(OSError):
            target.rmdir()  # an empty folder
        _is_there(new, target)
    for new, target in targets.items():
        # another process may have written there in the meantime
        if not _is_there(new, target):
            os.replace(new, target)


def _is_there(new: pathlib.Path, target: pathlib.Path) -> bool:
    """Whether a target is there; an ExportError if its content is another."""
    if not os.path.lexists(target):
        return False
    if not _same(new, target):
        raise errors.ExportError(
            f"{target} is there with another content: move it away or choose "
            "another folder."
        )
    return True


def _same(new: pathlib.Path, old: pathlib.Path) -> bool:
    """Whether two files, or the files of two bundles, are the same."""
    if new.is_file():
        return old.is_file() and filecmp.cmp(new, old, shallow=False)
    try:
        run_on_device.read_manifest(str(old))
    except run_on_device.BundleError:
        return False
    name = run_on_device.MANIFEST_FILE
    return filecmp.cmp(new / name, old / name, shallow=False)


def _write_files(
    folder: pathlib.Path,
    content: bytes,
    splits: Mapping[str, tf.data.Dataset],
    facts: Mapping[str, Any],
    expand_low_bits: bool,
) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    """Fills a folder; returns the manifest and the evaluations."""
    expand = run_on_device.expand_low_bits if expand_low_bits else bytes
    model = run_on_device.Model(
        expand(content),
        batch_size=_BATCH_SIZE,
        num_threads=os.cpu_count() or 1,
        kernels=KERNELS,
    )
    (folder / run_on_device.MODEL_FILE).write_bytes(content)
    (folder / "README.txt").write_text(_README)
    shutil.copyfile(run_on_device.__file__, folder / "run_on_device.py")
    found = {
        split: _write_examples(
            folder / run_on_device.examples_file(split), splits[split], model
        )
        for split in run_on_device.SPLITS
    }
    recorded = {
        split: run_on_device.summary(evaluation.losses, evaluation.correct)
        for split, evaluation in found.items()
    }
    manifest = {
        **facts,
        "format": run_on_device.BUNDLE_FORMAT,
        "is_float": model.is_float,
        "kernels": KERNELS,
        "expand_low_bits": expand_low_bits,
        "recorded": recorded,
        "gap": run_on_device.gap(recorded),
        "files": {
            path.name: {
                "sha256": run_on_device.sha256(str(path)),
                "num_bytes": path.stat().st_size,
            }
            for path in sorted(folder.iterdir())
        },
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
    (folder / run_on_device.MANIFEST_FILE).write_text(f"{text}\n")
    return manifest, found


def _write_examples(
    path: pathlib.Path, dataset: tf.data.Dataset, model: run_on_device.Model
) -> Evaluation:
    """Writes a file of examples; returns how the model does on them."""
    count = int(dataset.cardinality())
    if count < 1:
        raise errors.DataError(
            f"the examples of {path.name} are none or of unknown number."
        )
    labels: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    with zipfile.ZipFile(path, "w") as archive:
        with _entry(archive, "images") as file:
            header: dict[str, Any] = {"fortran_order": False}
            for images, batch_labels in dataset.batch(_BATCH_SIZE):
                stored = _stored(images.numpy(), model)
                if not labels:
                    header["descr"] = stored.dtype.str
                    header["shape"] = (count, *stored.shape[1:])
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(stored.tobytes())
                labels.append(batch_labels.numpy().astype("<i4"))
                outputs.append(model.outputs(stored))
        arrays = {
            "labels": np.concatenate(labels),
            "outputs": np.concatenate(outputs),
        }
        for name, array in arrays.items():
            with _entry(archive, name) as file:
                np.lib.format.write_array(file, array, version=(1, 0))
    logits = model.logits(arrays["outputs"])
    return Evaluation(
        losses=run_on_device.cross_entropy(logits, arrays["labels"]),
        correct=logits.argmax(axis=1) == arrays["labels"],
    )


def _entry(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    entry = zipfile.ZipInfo(f"{name}.npy", _FIRST_DATE)
    return archive.open(entry, "w", force_zip64=True)  # type: ignore


def _stored(images: np.ndarray, model: run_on_device.Model) -> np.ndarray:
    """Returns images as `run_on_device.Model.outputs` takes them."""
    if model.is_float:
        return images.astype("<f4")
    scale, zero_point = model.input["quantization"]
    levels = on_grid(images, scale, zero_point, np.int8)
    return (levels + 128).astype(np.uint8)


def _write_archive(path: pathlib.Path, folder: pathlib.Path) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for file in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(f"{folder.name}/{file.name}")
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)
