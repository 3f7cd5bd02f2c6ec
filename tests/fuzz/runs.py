"""Damaged run directories: a small study, finished, in which a file is not."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from qgen_tf import models, training
from qgen_tf.quantization import quantize_model
from qgen_tf.study import hparams, records
from qgen_tf.study.reporting import report_runs
from qgen_tf.training import TRAINED_FILE, load_model
from qgen_tf.training.saved_model import save_weights, scheme
from tests import tiny
from tests.fuzz import damage
from tests.study import fake_runs

_OF_MODELS = ("config.json", TRAINED_FILE)
_OF_MODELS = ("config.json", TRAINED_FILE)
_SHAPE, _CLASSES = (8, 8, 1), 10
_FOLDERS = ("here", "itself", "/dev/zero", "/etc/passwd", "../..", "nowhere")
STEPS = ("records", "layers", "shown", "model")
CHAINED = True


def make(generator: np.random.Generator) -> tuple[str, Any]:
    """Returns (what it is, what to do with a copy of the study)."""
    runs = sorted(each for each in original().iterdir() if each.is_dir())
    run = damage.pick(generator, runs)
    files = sorted(each for each in run.rglob("*") if each.is_file())
    file = damage.pick(generator, files)
    content = file.read_bytes()
    kind = int(generator.integers(10))
    if kind == 0:
        change, what = "link", damage.pick(generator, _FOLDERS)
    elif kind == 1:
        change, what = damage.pick(generator, ("folder", "delete")), ""
    elif kind < 7 and file.suffix == ".json":
        tree = json.loads(content)
        for _ in range(generator.integers(1, 4)):
            tree = damage.tree(generator, tree)
        change, what = "write", json.dumps(tree).encode()
    elif kind == 7:
        change = "write"
        what = damage.pick(
            generator, (b"", b"null", b"[" * 10**5, b"NaN", b"\xff\xfe{}")
        )
    else:
        mutation = damage.pick(generator, damage.BYTES)
        change, what = "write", mutation(generator, content)
    place = file.relative_to(original())
    # what both read is tried on one of them
    as_model = file.suffix == ".h5" or (
        file.name in _OF_MODELS and generator.random() < 0.3
    )
    how = f"{change} {place} {what[:2000]!r}, {'model' * as_model}"
    return how, (place, change, what, as_model)


@functools.cache
def original() -> pathlib.Path:
    """Returns a folder with a float run and its twin, nobody trained them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="qgen-fuzz-"))
    config = tiny.config()
    config.model.width = 2
    for bits in (None, (4, 8)):
        run = fake_runs.make(folder, config, bits=bits)
        model = models.build(run.config.model, _SHAPE, _CLASSES)
        if training.is_quantized(run.config):
            model = quantize_model(model, scheme(run.config))
        save_weights(model, run, "final.weights.h5")
        facts = run.read_json(TRAINED_FILE)
        sizes = {"image_shape": _SHAPE, "num_classes": _CLASSES}
        run.write_json(TRAINED_FILE, {**facts, **sizes})
        run.write_json("seconds.json", {"train": 1.5, "measure": 2})
        run.write_json("failure.json", {"stage": "export", "reason": "full"})
        fake_runs.distort(run)
    return folder


@contextlib.contextmanager
def trying() -> Iterator[Callable[[Any], dict[str, Callable[[], Any]]]]:
    """Gives what damages a study, and returns the steps that read it."""
    with tempfile.TemporaryDirectory(prefix="qgen-fuzz-") as scratch:
        folder = pathlib.Path(scratch) / "runs"
        try:
            yield functools.partial(_steps, folder)
        finally:
            shutil.rmtree(original())
            original.cache_clear()


def _steps(
    folder: pathlib.Path, damaged: tuple[pathlib.Path, str, Any, bool]
) -> dict[str, Callable[[], Any]]:
    place, change, what, as_model = damaged
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original(), folder)
    path = folder / place
    path.unlink()
    if change == "link":
        path.symlink_to(path.name if what == "itself" else what)
    elif change == "folder":
        path.mkdir()
    elif change == "write":
        path.write_bytes(what)
    known: dict[str, Any] = {}

    def load() -> None:
        found = records.survey(folder)
        known["runs"] = found.finished
        known["records"] = records.frame(found.finished)

    def layers() -> None:
        records.noise(known["runs"])
        records.quantization(known["runs"])

    def shown() -> None:
        arguments = (known["records"], known["runs"], folder)
        report_runs.shown(*arguments, landscape=False)
        hparams.write(known["records"], folder / "report")

    if as_model:
        return {"model": lambda: load_model(folder / place.parts[0])}
    return {"records": load, "layers": layers, "shown": shown}
