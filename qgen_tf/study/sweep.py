"""Runs every trial of a study, in as many processes as there is room for."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable

import ml_collections
import tqdm

from qgen_tf.study import design, scheduler, trial, worker
from qgen_tf.study.design import Trial
from qgen_tf.study.scheduler import Resources
from qgen_tf.training import RunDirectory


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a sweep has come to.

    Attributes:
      runs: that went through every stage, in the order of the design.
      failed: name of the run directory of each other one to the reason.
    """

    runs: list[RunDirectory]
    failed: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a sweep has done so far.

    Attributes:
      trials: all of them, in the order of the design.
      done: trials that went through every stage.
      failed: those whose last attempt failed, to the reason.
      open: the others.
    """

    trials: list[Trial]
    done: list[Trial]
    failed: dict[Trial, str]
    open: list[Trial]


def progress(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    retry_failed: bool = False,
) -> Progress:
    """Returns what is done of a sweep.

    A twin of a float model that has failed counts as failed.

    Args:
      config: of the sweep.
      workdir: folder of run directories.
      retry_failed: whether those that have failed are open again.

    Raises:
      UserError: a setting of any trial is wrong.
    """
    found = Progress(design.trials(config, workdir), [], {}, [])
    failed_paths = set()
    for one in found.trials:
        if trial.is_done(one.config, workdir):
            found.done.append(one)
            continue
        reason = None if retry_failed else trial.failure(one.config, workdir)
        if one.parent and one.parent in failed_paths:
            reason = f"{one.parent.name}, which it needs, failed"
        if reason is None:
            found.open.append(one)
        else:
            failed_paths.add(one.path)
            found.failed[one] = reason
    return found


def run(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    resources: Resources | None = None,
    *,
    retry_failed: bool = False,
    deterministic: bool = True,
) -> Outcome:
    """Trains, measures, exports and verifies every trial.

    What is done already is left as it is; a killed sweep goes on where it
    stopped, and loses the unfinished epochs and measures of the trials that
    were running.

    Args:
      config: of the sweep; see `design.trials`.
      workdir: folder of run directories; on a cluster, of a file system that
        all machines share.
      resources: where trials run; one core each on this machine if None.
      retry_failed: whether to try again what has failed before.
      deterministic: whether a rerun gives the same bits; see
        `training.make_deterministic`.

    Raises:
      UserError: a setting of any trial is wrong; then none has started.
    """
    resources = resources or Resources()
    workdir = pathlib.Path(workdir).absolute()
    found = progress(config, workdir, retry_failed=retry_failed)
    failed = {one.path.name: reason for one, reason in found.failed.items()}
    if found.open:
        failed |= _run(config.name, found, workdir, resources, deterministic)
    return Outcome(
        [
            RunDirectory(one.path)
            for one in found.trials
            if one.path.name not in failed
        ],
        failed,
    )


def _run(
    title: str,
    found: Progress,
    workdir: pathlib.Path,
    resources: Resources,
    deterministic: bool,
) -> dict[str, str]:
    """Runs what is open; returns what failed."""
    by_name = {one.path.name: one for one in found.open}
    settings = (workdir, pathlib.Path.cwd(), resources.cpus, deterministic)
    jobs = [
        scheduler.Job(
            name,
            (one.config, *settings),
            one.parent.name if one.parent else None,
        )
        for name, one in by_name.items()
    ]
    with (
        scheduler.cluster(resources),
        _bar(title, found) as bar,
    ):
        state = scheduler.run(
            jobs, worker.work, resources, on_change=_shower(bar, found)
        )
    for name, one in by_name.items():
        if name in state.crashed:
            trial.record_failure(one.config, workdir, state.failed[name])
    return state.failed


def _bar(title: str, found: Progress) -> tqdm.tqdm:
    done = len(found.done)
    return tqdm.tqdm(
        total=done + len(found.open) + len(found.failed),
        initial=done + len(found.failed),
        desc=title,
        unit="model",
        dynamic_ncols=True,
        smoothing=0.0,
    )


def _shower(
    bar: tqdm.tqdm, found: Progress
) -> Callable[[scheduler.State], None]:
    before = bar.n

    def show(state: scheduler.State) -> None:
        failed = len(found.failed) + len(state.failed)
        bar.set_postfix_str(
            f"{failed} failed, {state.running} running", refresh=False
        )
        bar.n = before + len(state.done) + len(state.failed)
        bar.refresh()

    return show
