"""Exports a trained run, and verifies the file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import Any

import tqdm

from export import capabilities, flatbuffer, sandbox, tflite
from export.verification import MARGIN
from export.verification import verify as verify_file
from qgen_tf import data, errors
from qgen_tf.data import corruptions
from qgen_tf.measures.equivalence import require_margin
from qgen_tf.quantization import InferenceModel, inference_model
from qgen_tf.study import tables
from qgen_tf.study.latency import latency_ms
from qgen_tf.study.reporting import verification_page
from qgen_tf.training import RunDirectory, atomic_path, load_model, lock

VERIFICATION_FILE = "export/verification.json"
MODEL_FILE = "export/model.tflite"
DIVERGENCE_FILE = "export/divergence.json"
# not that of the run: it may be measured at the same time
LOCK_FILE = ".export.lock"

_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a verification depends on, beside the run.

    Attributes:
      storage: of weights; see `export.convert`.
      allow_float: patterns of the names of layers that may compute in float.
      margin: largest difference of the gaps that counts as none, in points.
      kernels: of the runtime; see `export.Interpreter`.
      corruption: of a second test set, or None; see `data.corruptions`.
      severity: of the corruption, 1..5.
    """

    storage: str = "int8"
    allow_float: tuple[str, ...] = ()
    margin: float = MARGIN
    kernels: str = "xnnpack"
    corruption: str | None = None
    severity: int = 3

    @property
    def model_file(self) -> str:
        """Where a run keeps the TensorFlow Lite file."""
        return _named(MODEL_FILE, self.storage)

    @property
    def verification_file(self) -> str:
        """Where a run keeps the record; text and HTML have other suffixes."""
        corruption = self.corruption and f"{self.corruption}-{self.severity}"
        return _named(VERIFICATION_FILE, self.storage, self.kernels, corruption)

    @property
    def divergence_file(self) -> str:
        """Where a run keeps the layers that diverge; the plot is beside it."""
        return _named(DIVERGENCE_FILE, self.storage, self.kernels)

    @property
    def expand_low_bits(self) -> bool:
        """Whether the runtime lacks operators that read the weights."""
        return self.storage == "int2" or (
            self.storage == "int4" and self.kernels == "reference"
        )

    def check(self) -> None:
        """Raises a UserError where a setting can be seen to be wrong."""
        require_margin(self.margin)
        if self.corruption is not None:
            corruptions.check(self.corruption, self.severity)


DEFAULTS = Settings()


def _named(file: str, *settings: str | None) -> str:
    """Adds settings that are not the default ones to the name of a file."""
    path = pathlib.PurePath(file)
    usual = (DEFAULTS.storage, DEFAULTS.kernels)
    added = [name for name in settings if name and name not in usual]
    return str(path.with_stem("-".join([path.stem, *added])))


def export(
    run_dir: str | os.PathLike[str], settings: Settings = DEFAULTS
) -> pathlib.Path:
    """Exports a trained run to TensorFlow Lite, unless its file is there.

    The integers of the file are those of the trained network: that is proved
    of a file that stands there, too.

    Returns:
      The path of the file.

    Raises:
      UserError: the run is not trained, cannot be converted, or the file does
        not hold the integers of the network.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    path = run.path / settings.model_file
    with contextlib.nullcontext() if path.exists() else locked(run):
        file_content(run, inference_model(load_model(run.path)), settings)
    return path


def verify(
    run_dir: str | os.PathLike[str], settings: Settings = DEFAULTS
) -> dict[str, Any]:
    """Exports a trained run and holds its file against the trained model.

    Whole data sets are evaluated. Nothing is done again that stands there with
    the same settings, of the same file.

    Returns:
      What is written to `settings.verification_file`; text and a page for the
      browser are beside it.

    Raises:
      UserError: as `export`; or a setting is wrong.
    """
    settings.check()
    run = RunDirectory(run_dir)
    run.require_trained()
    if not is_verified(run.path, settings):
        with locked(run):
            # another process may have verified it in the meantime
            if not is_verified(run.path, settings):
                _verify(run, settings)
    return run.read_json(settings.verification_file)


def locked(run: RunDirectory) -> contextlib.AbstractContextManager[None]:
    """Keeps other processes from exporting the run; see `lock`."""
    return lock(run.path / LOCK_FILE)


def _verify(run: RunDirectory, settings: Settings) -> None:
    """Does what `verify` says, and writes it."""
    model = load_model(run.path)
    network = inference_model(model)
    content = file_content(run, network, settings)
    if not settings.expand_low_bits:
        capabilities.require_runnable(content, kernels=settings.kernels)
    splits = data.load(run.config.dataset)
    corrupted = None
    if settings.corruption is not None:
        corrupted = splits.corrupted_test(
            settings.corruption, severity=settings.severity
        ).batch(_BATCH_SIZE)
    verification = verify_file(
        model,
        network,
        content,
        splits.train.batch(_BATCH_SIZE),
        splits.test.batch(_BATCH_SIZE),
        margin=settings.margin,
        kernels=settings.kernels,
        expand_low_bits=settings.expand_low_bits,
        corrupted=corrupted,
        progress=functools.partial(
            tqdm.tqdm, desc=f"{run.label} verify", unit="batch"
        ),
    )
    record = {
        "run": run.path.name,
        "settings": dataclasses.asdict(settings),
        "sha256": digest(content),
        **dataclasses.asdict(verification),
        "latency_ms": latency_ms(
            content,
            next(iter(splits.test))[0].numpy(),
            kernels=settings.kernels,
            expand_low_bits=settings.expand_low_bits,
        ),
    }
    path = run.path / settings.verification_file
    for suffix, text in (
        (".txt", tables.verification_text(record) + "\n"),
        (".html", verification_page.render(record)),
    ):
        with atomic_path(path.with_suffix(suffix)) as target:
            target.write_text(text)
    run.write_json(settings.verification_file, record)


def is_verified(
    run_dir: str | os.PathLike[str], settings: Settings = DEFAULTS
) -> bool:
    """Whether `verify` would find nothing to do."""
    run = RunDirectory(run_dir)
    model_file = run.path / settings.model_file
    if not (run.path / settings.verification_file).exists():
        return False
    record = run.read_json(settings.verification_file)
    wanted = json.loads(json.dumps(dataclasses.asdict(settings)))
    return (
        model_file.exists()
        and record.get("settings") == wanted
        and record["sha256"] == digest(model_file.read_bytes())
    )


def is_readable(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a run has a record of `verify` with the default file name.

    Those of versions without a test of equivalence do not count.
    """
    run = RunDirectory(run_dir)
    if not (run.path / VERIFICATION_FILE).exists():
        return False
    return "equivalence" in run.read_json(VERIFICATION_FILE)


def file_content(
    run: RunDirectory, network: InferenceModel, settings: Settings
) -> bytes:
    """Returns the file of a run, which is written if there is none.

    Args:
      run: that is trained, and `locked` where it has no file.
      network: that it deploys.
      settings: of the file.

    Raises:
      UserError: as `export`.
    """
    path = run.path / settings.model_file
    is_new = not path.exists()
    if is_new:
        content = tflite.convert(
            network,
            storage=settings.storage,
            allow_float=settings.allow_float,
        )
    else:
        content = path.read_bytes()
    try:
        if not is_new:
            sandbox.probe(
                content,
                kernels=settings.kernels,
                expand_low_bits=settings.expand_low_bits,
            )
        flatbuffer.check(network, content, settings.allow_float)
    except errors.ExportError as error:
        if is_new:
            raise
        raise errors.ExportError(
            f"{path}: {str(error).rstrip('.')}; delete the file to convert the "
            "run again."
        ) from error
    if is_new:
        with atomic_path(path) as target:
            target.write_bytes(content)
    return content


def digest(content: bytes) -> str:
    """Returns the SHA-256 that records name a file by."""
    return hashlib.sha256(content).hexdigest()
