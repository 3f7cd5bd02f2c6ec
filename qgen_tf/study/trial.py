"""One trial of a study: a model and all that is made of it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
import traceback
from collections.abc import Callable

import ml_collections

from qgen_tf import sharing, training
from qgen_tf.study import distorting, exporting, measuring
from qgen_tf.training import RunDirectory

FAILURE_FILE = "failure.json"
SECONDS_FILE = "seconds.json"
CORRUPTED_FOLDER = "corrupted"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a trial.

    Attributes:
      name: train, measure, export or corruptions.
      is_done: whether `run` would find nothing to do.
      run: does it, or goes on where a killed process stopped.
    """

    name: str
    is_done: Callable[[], bool]
    run: Callable[[], object]


def stages(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> tuple[Stage, ...]:
    """Returns the stages of a trial; each asks for those before it."""
    path = training.run_path(workdir, config)
    cache = pathlib.Path(workdir) / CORRUPTED_FOLDER
    return (
        Stage(
            "train",
            lambda: training.is_finished(path),
            lambda: training.train(config, workdir),
        ),
        Stage(
            "measure",
            lambda: measuring.is_measured(path, config.measures),
            lambda: measuring.measure(path, config.measures),
        ),
        Stage(
            "export",
            lambda: exporting.is_verified(path),
            lambda: exporting.verify(path),
        ),
        Stage(
            "corruptions",
            lambda: distorting.is_distorted(path, config.corruptions),
            lambda: distorting.distort(path, config.corruptions, cache),
        ),
    )


def is_done(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> bool:
    """Whether a trial has gone through every stage."""
    return all(stage.is_done() for stage in stages(config, workdir))


def run(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> RunDirectory:
    """Goes through every stage of a trial that is not done.

    The seconds of each stage are added up in `seconds.json`, also over
    attempts.

    Raises:
      UserError: a setting is wrong, data is missing, or training diverged.
    """
    with sharing.shared():
        for stage in stages(config, workdir):
            if not stage.is_done():
                begun = time.monotonic()
                stage.run()
                done = RunDirectory(training.run_path(workdir, config))
                _add_seconds(done, stage.name, time.monotonic() - begun)
    done = RunDirectory(training.run_path(workdir, config))
    (done.path / FAILURE_FILE).unlink(missing_ok=True)
    return done


def _add_seconds(run: RunDirectory, stage: str, seconds: float) -> None:
    with run.locked():
        known = {}
        if (run.path / SECONDS_FILE).exists():
            known = run.read_json(SECONDS_FILE)
        known[stage] = round(known.get(stage, 0.0) + seconds, 2)
        run.write_json(SECONDS_FILE, known)


def attempt(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> str | None:
    """Does `run`; returns in one sentence why it failed, or None.

    The reason is kept in `failure.json` until an attempt succeeds.
    """
    try:
        run(config, workdir)
    except Exception as error:
        # whatever it was: the other trials go on
        return record_failure(
            config,
            workdir,
            f"{type(error).__name__}: {error}",
            traceback.format_exc(),
        )
    return None


def record_failure(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    reason: str,
    details: str = "",
) -> str:
    """Writes `failure.json`, where a run can be written, and returns why.

    Its stage is the first that is not done.
    """
    reason = " ".join(reason.split())
    try:
        stage = next(s for s in stages(config, workdir) if not s.is_done())
        content = {
            "stage": stage.name,
            "reason": reason,
            "traceback": details,
        }
        directory = RunDirectory.create(workdir, config)
        with directory.locked():
            directory.write_json(FAILURE_FILE, content)
    except Exception as error:
        return f"{reason} (and it cannot be recorded: {error})"
    return reason


def failure(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> str | None:
    """Returns why the last attempt failed, or None."""
    path = training.run_path(workdir, config)
    if not (path / FAILURE_FILE).exists():
        return None
    return RunDirectory(path).read_json(FAILURE_FILE)["reason"]
