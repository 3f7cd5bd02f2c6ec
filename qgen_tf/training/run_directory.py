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
      .lock, .export.lock name the processes that write
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

import ml_collections

from qgen_tf import errors
from qgen_tf.config import check_values, default_config
from qgen_tf.quantization import FLOAT_BITS
from qgen_tf.training import json_files, strategies
from qgen_tf.training.locks import lock
from qgen_tf.training.writing import atomic_path, leftovers

TRAINED_FILE = "train.json"
BACKUP_FOLDER = "backup"
LOCK_FILE = ".lock"

_DETERMINING = ("seed", "dataset", "model", "training", "quantization")


@errors.typed
def is_quantized(config: ml_collections.ConfigDict) -> bool:
    """Whether the config asks for a quantized model."""
    bits = config.quantization
    return not bits.weight_bits == bits.activation_bits == FLOAT_BITS


def float_config(
    config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
    """Returns the config of the float model that a twin starts from."""
    return with_bits(config, FLOAT_BITS, FLOAT_BITS)


@errors.typed
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


@errors.typed
def run_path(
    workdir: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> pathlib.Path:
    """Returns where the run of a config is, or will be."""
    content = json.dumps(_determining(config), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return pathlib.Path(workdir) / f"{config.name}-{label(config)}-{digest}"


@errors.typed
def is_finished(path: str | os.PathLike[str]) -> bool:
    """Whether a training has ended, and what it no longer needs is removed."""
    files = {file.name for file in pathlib.Path(path).glob("*")}
    return TRAINED_FILE in files and BACKUP_FOLDER not in files


class RunDirectory:
    """A directory of one trained model; files in it appear whole or not at all.

    Attributes:
      path: of the directory.
    """

    @errors.typed
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
                # a process may have begun just now, or been killed then
                begun = leftovers(path / "config.json")
                if {*path.iterdir()} - {*begun, path / LOCK_FILE}:
                    raise errors.RunDirectoryError(
                        f"{path} has files but no config.json: it is not a run "
                        "of this project; move it away or choose another "
                        "--workdir."
                    )
                with lock(path / LOCK_FILE):
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
        defaults = default_config().to_dict()
        with self.reading("config.json") as content:
            for section in ("dataset", "training", "quantization"):
                content[section] = defaults[section] | content[section]
            config = ml_collections.ConfigDict(content)
            _require_types(config)
        return config

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
        return lock(self.path / LOCK_FILE)

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

    def read_json(self, name: str) -> dict[str, Any]:
        """Returns the content of a JSON file of the run.

        Raises:
          RunDirectoryError: the file is missing or damaged.
        """
        return json_files.read(self.path / name)

    def reading(
        self, name: str
    ) -> contextlib.AbstractContextManager[dict[str, Any]]:
        """Gives that content to what takes it apart; see `json_files`."""
        return json_files.reading(self.path / name)

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file of the run. NaN is refused."""
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        with atomic_path(self.path / name) as target:
            target.write_text(text)


def _require_types(config: ml_collections.ConfigDict) -> None:
    """Raises unless a config that was read is one that could be written."""
    if missing := {"name", *_DETERMINING} - {*config}:
        raise KeyError(*sorted(missing))
    if not isinstance(config.model.name, str):
        raise TypeError(f"model.name is {config.model.name!r}")
    check_values(config)
