"""Corrupted test sets that many models share: what they are, and their files.

A file is an array of numpy, one record (image, label, CRC-32) an example. It
is mapped, not read, into memory: a set may be larger than that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import corruptions, examples

CIFAR10_CORRUPTED = "cifar10_corrupted"
MADE = "made"

# what the images depend on, beside the corruption
_DATASET_FIELDS = ("name", "image_size", "center_crop", "num_test")
_FIELDS = ("image", "label", "crc32")
_BATCH_SIZE = 256


def check(dataset_config: Any, kind: str, severity: int) -> None:
    """Raises a ConfigError unless there is such a set, or it can be made.

    Args:
      dataset_config: the fields of `config.dataset`.
      kind: a key of `corruptions.CORRUPTIONS`; of CIFAR-10 at 32 pixels, also
        any kind of tfds `cifar10_corrupted` that is prepared.
      severity: 1..5.
    """
    _source(dataset_config, kind, severity)


@dataclasses.dataclass(frozen=True)
class CorruptedSet:
    """All that the images and labels of a corrupted test set depend on.

    Attributes:
      dataset: those fields of `config.dataset` that matter.
      kind: of the corruption.
      severity: 1..5.
      seed: of what is drawn for the images.
      num_examples: of the test set, the first; 0 for all.
      source: "cifar10_corrupted", which is read where tfds has prepared it, or
        "made".
    """

    dataset: dict[str, Any]
    kind: str
    severity: int
    seed: int
    num_examples: int
    source: str

    @classmethod
    def of(
        cls,
        dataset_config: Any,
        kind: str,
        severity: int,
        *,
        seed: int = 0,
        num_examples: int = 0,
    ) -> CorruptedSet:
        """Returns the set of a test set and a corruption.

        Args:
          dataset_config: the fields of `config.dataset`.
          kind: see `check`.
          severity: 1..5.
          seed: of what is drawn for the images.
          num_examples: of the test set, the first; 0 for all.

        Raises:
          errors.ConfigError: as `check`.
        """
        return cls(
            {field: dataset_config[field] for field in _DATASET_FIELDS},
            kind,
            severity,
            seed,
            num_examples,
            _source(dataset_config, kind, severity),
        )

    @property
    def file_name(self) -> str:
        """Of another set it is another."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        return f"{self.kind}-{self.severity}-{digest}.npy"

    def examples(
        self, test: Callable[[], examples.Examples]
    ) -> examples.Examples:
        """Returns the examples, before normalization.

        Those of cifar10_corrupted come in an order of their own, and where the
        test set is a subset they are another one of its size. A gap, which is
        a difference of means, can be taken of them all the same; the models
        that are compared see the same images.

        Args:
          test: returns the test set; not called where it is not needed.

        Raises:
          errors.UserError: the images cannot be corrupted.
        """
        if self.source == MADE:
            part = corruptions.corrupted(
                test(), self.kind, severity=self.severity, seed=self.seed
            )
        else:
            part = _first(
                _read(_prepared(self.kind, self.severity)),
                self.dataset["num_test"],
            )
        return _first(part, self.num_examples)


def write(part: examples.Examples, path: pathlib.Path) -> None:
    """Writes examples to a file, batch by batch.

    Raises:
      errors.DataError: there are not as many as there should be.
    """
    record = _record(part.image_shape)
    header = {
        "descr": np.lib.format.dtype_to_descr(record),
        "fortran_order": False,
        "shape": (part.size,),
    }
    written = 0
    # not through a map of the file, which would crash where the disk is full
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        batches = part.images().batch(_BATCH_SIZE)
        for images, labels in batches.as_numpy_iterator():
            records = np.empty(len(labels), record)
            records["image"], records["label"] = images, labels
            records["crc32"] = _checksums(records)
            file.write(records.tobytes())
            written += len(records)
    if written != part.size:
        raise errors.DataError(
            f"{part.name!r} has {written} examples instead of {part.size}: "
            "prepare the data set again."
        )


def read(path: pathlib.Path) -> np.ndarray | None:
    """Returns the records of a file, or None if it is missing or damaged.

    Returns:
      Records with the fields `image`, uint8 [height, width, channels], and
      `label`, int32, mapped into memory.
    """
    try:
        records = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # numpy reads no pickle here, and fails in many ways
        return None
    whole = (
        records.dtype.names == _FIELDS
        and records.dtype == _record(records.dtype["image"].shape)
        and path.stat().st_size == records.offset + records.nbytes
        and records["crc32"].tolist() == _checksums(records)
    )
    return records if whole else None


def _record(image_shape: tuple[int, ...]) -> np.dtype:
    types = (np.uint8, image_shape), np.int32, np.uint32
    return np.dtype(list(zip(_FIELDS, types, strict=True)))


def _checksums(records: np.ndarray) -> list[int]:
    """Returns the CRC-32 of what stands before it in each record.

    It starts from the shape of an image, which the header alone would hold.
    """
    start = zlib.crc32(repr(records.dtype["image"].shape).encode())
    rows = records.view(np.uint8).reshape(len(records), -1)
    return [zlib.crc32(row[:-4].data, start) for row in rows]


def _first(part: examples.Examples, count: int) -> examples.Examples:
    """Returns the first examples; 0 for all, as if there are fewer."""
    if not 0 < count < part.size:
        return part
    return dataclasses.replace(
        part,
        records=part.records.take(count),
        size=count,
        labels=None if part.labels is None else part.labels[:count],
    )


def _source(dataset_config: Any, kind: str, severity: int) -> str:
    """Returns where a set comes from; see `check`."""
    if _fits_prepared_sets(dataset_config):
        corruptions.check_severity(severity)
        if _prepared(kind, severity) is not None:
            return CIFAR10_CORRUPTED
        if kind not in corruptions.CORRUPTIONS:
            raise errors.ConfigError(
                f"corruption {kind!r} cannot be made here, and "
                f"{_tfds_name(kind, severity)} is not in "
                f"{_data_dir() or '~/tensorflow_datasets'}: choose one of "
                f"{corruptions.available()}, or prepare it with `tfds build`."
            )
    corruptions.check(kind, severity)
    return MADE


def _fits_prepared_sets(dataset_config: Any) -> bool:
    """Whether images are like those of cifar10_corrupted."""
    return (
        dataset_config["name"] == "cifar10"
        and dataset_config["image_size"] in (0, 32)
        and not dataset_config["center_crop"]
    )


def _tfds_name(kind: str, severity: int) -> str:
    return f"{CIFAR10_CORRUPTED}/{kind}_{severity}"


def _data_dir() -> str | None:
    return os.environ.get("TFDS_DATA_DIR")


def _prepared(kind: str, severity: int) -> Any | None:
    """Returns a builder that only reads, or None if the set is not there."""
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(
            _tfds_name(kind, severity), data_dir=_data_dir()
        )
    except ValueError:  # not there, or no name of a set
        return None


def _read(builder: Any) -> examples.Examples:
    dataset = builder.as_dataset(split="test", as_supervised=True)
    return examples.Examples(
        name=builder.info.full_name,
        records=dataset.map(
            lambda image, label: (image, tf.cast(label, tf.int32))
        ),
        decode=lambda image: image,
        size=builder.info.splits["test"].num_examples,
        shuffle_buffer=1,
    )
