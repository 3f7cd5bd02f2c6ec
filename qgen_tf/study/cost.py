"""What a sweep costs, before it is run."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections import defaultdict

import ml_collections

from qgen_tf import data, training
from qgen_tf.study import sweep, trial
from qgen_tf.study.design import Trial
from qgen_tf.training import RunDirectory


@dataclasses.dataclass(frozen=True)
class Cost:
    """What is left of a sweep to do.

    Attributes:
      name: of the config.
      num_float: float models.
      num_twins: quantized models.
      num_done: models that are finished.
      num_failed: models whose last attempt failed.
      num_open: models to do.
      examples: that the open trainings read, at most.
      seconds: of a model on one worker, by bits: medians of finished ones;
        empty if none is finished.
      hours: of all open models, on one worker; None without finished ones.
    """

    name: str
    num_float: int
    num_twins: int
    num_done: int
    num_failed: int
    num_open: int
    examples: int
    seconds: dict[str, float]
    hours: float | None

    def text(self, workers: int) -> str:
        """Returns it for people who have that many workers."""
        lines = [
            f"{self.name}: {self.num_float} float models and {self.num_twins} "
            f"quantized twins; {self.num_done} done, {self.num_failed} "
            f"failed, {self.num_open} to do",
            f"examples to train on, at most: {self.examples:,}",
        ]
        if self.hours is None:
            lines.append(
                "time: no model is finished, so it is not known; run the sweep "
                "for some minutes, interrupt it, and ask again"
            )
        else:
            of_bits = ", ".join(
                f"{bits} {seconds:.0f}"
                for bits, seconds in self.seconds.items()
            )
            lines += [
                f"seconds a model, medians of finished ones: {of_bits}",
                f"time: {self.hours:.2g} worker hours, "
                f"{self.hours / workers:.2g} hours with {workers} workers",
            ]
        return "\n".join(lines)


def estimate(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    retry_failed: bool = False,
) -> Cost:
    """Returns what is left of a sweep to do.

    Raises:
      UserError: a setting of any trial is wrong.
    """
    found = sweep.progress(config, workdir, retry_failed=retry_failed)
    every = [*found.done, *found.failed, *found.open]
    known = defaultdict(list)
    for one in found.done:
        run = RunDirectory(one.path)
        if (run.path / trial.SECONDS_FILE).exists():
            known[run.label].append(
                sum(run.read_json(trial.SECONDS_FILE).values())
            )
    seconds = {bits: statistics.median(each) for bits, each in known.items()}
    mean = statistics.fmean(seconds.values()) if seconds else math.nan
    total = sum(
        seconds.get(training.label(one.config), mean) for one in found.open
    )
    return Cost(
        name=config.name,
        num_float=sum(one.parent is None for one in every),
        num_twins=sum(one.parent is not None for one in every),
        num_done=len(found.done),
        num_failed=len(found.failed),
        num_open=len(found.open),
        examples=_examples(found.open),
        seconds=seconds,
        hours=total / 3600.0 if seconds else None,
    )


def _examples(trials: list[Trial]) -> int:
    total, sizes = 0, {}
    for one in trials:
        dataset = one.config.dataset
        key = dataset.to_json()
        if key not in sizes:
            sizes[key] = dataset.num_train or data.load(dataset).num_train
        stage = one.config.quantization if one.parent else one.config.training
        total += stage.epochs * sizes[key]
    return total
