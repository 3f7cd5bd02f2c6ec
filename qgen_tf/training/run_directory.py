"""The run directory: all that is known of one trained model.

It is the only interface between training, measuring, export and study:

    <name>-<float or wXaY>-<hash8>/
      config.json         what determines the trained model
      initial.weights.h5  before the first step of training
      final.weights.h5    after the last
      history.csv         a row for each epoch
      train.json          written last by training
      measures.json       gap, flatness and noise
      measures-NAME.json  the same with the weights of the file NAME.tflite
      export/             model.tflite; verification.json, .txt and .html;
                          divergence.json and .svg; what compare needs of
                          bundles/
      corruptions.json    accuracies and losses on corrupted test sets
      seconds.json        that each stage took, where a sweep ran it
      failure.json        why the last attempt of a sweep failed
      backup/             the newest epoch, while training runs
      .lock               names the process that writes
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import ml_collections

from qgen_tf import errors
from qgen_tf.config import default_config
from qgen_tf.quantization import FLOAT_BITS
from qgen_tf.training import strategies
from qgen_tf.training.locks import lock

TRAINED_FILE = "train.json"

_UNWRITABLE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}

_DETERMINING = ("seed", "dataset", "model", "training", "quantization")


def is_quantized(config: ml_collections.ConfigDict) -> bool:
    """Whether the config asks for a quantized model."""
    bits = config.quantization
    return not bits.weight_bits == bits.activation_bits == FLOAT_BITS


def float_config(
    config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
    """Returns the config of the float model that a twin starts from."""
    return with_bits(config, FLOAT_BITS, FLOAT_BITS)


def with_bits(
    config: ml_collections.ConfigDict, weight_bits: int, activation_bits: int
) -> ml_collections.ConfigDict:
    """Returns the config with other bits."""
    twin = config.copy_and_resolve_references()
    twin.quantization.weight_bits = weight_bits
    twin.quantization.activation_bits = activation_bits
    return twin


def label(config: ml_collections.ConfigDict) -> str:
    """Returns "float" or the bits, such as "w4a8"."""
    if not is_quantized(config):
        return "float"
    bits = config.quantization
    return f"w{bits.weight_bits}a{bits.activation_bits}"


def _determining(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the fields that the trained weights depend on, as JSON types."""
    content = json.loads(config.to_json(sort_keys=True))
    if not is_quantized(config):
        content["quantization"] = {
            name: FLOAT_BITS for name in ("weight_bits", "activation_bits")
        }
    return {field: content[field] for field in _DETERMINING}


def run_path(
    workdir: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> pathlib.Path:
    """Returns where the run of a config is, or will be."""
    content = json.dumps(_determining(config), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return pathlib.Path(workdir) / f"{config.name}-{label(config)}-{digest}"


class RunDirectory:
    """A directory of one trained model; files in it appear whole or not at all.

    Attributes:
      path: of the directory.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens an existing run.

        Raises:
          RunDirectoryError: there is no run at `path`.
        """
        self.path = pathlib.Path(path)
        if not (self.path / "config.json").is_file():
            raise errors.RunDirectoryError(
                f"{self.path} is not a run directory: it has no config.json; "
                "pass a folder that qgen-train wrote."
            )

    @classmethod
    def create(
        cls,
        workdir: str | os.PathLike[str],
        config: ml_collections.ConfigDict,
    ) -> RunDirectory:
        """Opens the run of a config below `workdir`; makes it if it is new.

        Of several workers, the chief makes it, and the others wait.

        Raises:
          RunDirectoryError: the directory is there, from another config, or
            cannot be written.
        """
        path = run_path(workdir, config)
        content = {"name": config.name, **_determining(config)}
        if strategies.is_chief():
            cls._make(path, content)
        strategies.from_chief(0.0)
        run = cls(path)
        if run.read_json("config.json") != content:
            raise errors.RunDirectoryError(
                f"{path} belongs to another config: move it away or choose "
                "another --workdir."
            )
        return run

    @staticmethod
    def _make(path: pathlib.Path, content: dict[str, Any]) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "config.json").exists():
                if any(path.iterdir()):
                    raise errors.RunDirectoryError(
                        f"{path} has files but no config.json: it is not a run "
                        "of this project; move it away or choose another "
                        "--workdir."
                    )
                with atomic_path(path / "config.json") as target:
                    target.write_text(json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise errors.RunDirectoryError(
                f"cannot write the run directory {path}: {error.strerror}; "
                "choose another --workdir."
            ) from error

    @property
    def config(self) -> ml_collections.ConfigDict:
        """What determines the trained model, with `name`.

        Fields that are newer than the run have their defaults, and so have
        those of `quantization` that a float model does not depend on.
        """
        content = self.read_json("config.json")
        defaults = default_config().to_dict()
        for section in ("dataset", "training", "quantization"):
            content[section] = defaults[section] | content[section]
        return ml_collections.ConfigDict(content)

    @property
    def label(self) -> str:
        """The bits, such as "w4a8", or "float"."""
        return label(self.config)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes from writing into the run; see `lock`.

        Of several workers, the chief holds the lock for all.
        """
        if not strategies.is_chief():
            return contextlib.nullcontext()
        return lock(self.path / ".lock")

    @property
    def is_trained(self) -> bool:
        """Whether training has finished."""
        return (self.path / TRAINED_FILE).exists()

    def require_trained(self) -> None:
        """Raises a RunDirectoryError unless training has finished."""
        if not self.is_trained:
            raise errors.RunDirectoryError(
                f"{self.path} is not trained to the end: run qgen-train with "
                "the same config again; it resumes."
            )

    def read_json(self, name: str) -> Any:
        """Returns the content of a JSON file of the run.

        Raises:
          RunDirectoryError: the file is missing or damaged.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise errors.RunDirectoryError(
                f"{path} is missing: run the stage that writes it."
            ) from None
        except ValueError as error:
            raise errors.RunDirectoryError(
                f"{path} is damaged ({error}): delete it and run the stage "
                "that writes it."
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file of the run. NaN is refused."""
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        with atomic_path(self.path / name) as target:
            target.write_text(text)


@contextlib.contextmanager
def atomic_path(
    path: pathlib.Path, *, num_bytes: int = 0
) -> Iterator[pathlib.Path]:
    """Gives a temporary path that becomes `path` if no exception is raised.

    The suffixes are kept, because writers choose a format by them. What a
    killed process left is cleared by the next one that writes the same file.
    Of several workers, only the chief's file is kept.

    Args:
      path: of the file.
      num_bytes: that must fit on the disk, which is found out first: HDF5 may
        crash the process where a disk fills up.

    Raises:
      RunDirectoryError: the disk is full, or nothing may be written there.
    """
    if not strategies.is_chief():
        path = strategies.scratch() / path.name
    folder = path.parent / f".writing-{path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        if num_bytes:
            _require_room(folder / "room", num_bytes)
        yield folder / path.name
        os.replace(folder / path.name, path)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise errors.RunDirectoryError(
            f"cannot write {path}: {os.strerror(error.errno)}; make room there "
            "or choose another place with --workdir or --output."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_room(path: pathlib.Path, num_bytes: int) -> None:
    """Raises an OSError unless a file of that size can be written."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    path.unlink()
