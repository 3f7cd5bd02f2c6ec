"""How a sweep scales: with workers, over bare trials, to 10,000 models."""

from __future__ import annotations

import functools
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import flags

from benchmarks.processes import run_apart
from benchmarks.rows import Row, Spread, finish
from qgen_tf.cli import program

MANUAL = """\
Three questions, each answered in one run on a quiet machine:

  workers    trials by two workers with a core each: over twice what one such
             worker does, and over what one does that has both cores
  overhead   the same trials, each in a process of its own that does nothing
             else, one after the other, over those of a sweep with one worker
  many       fake trials through scheduler, records and report: seconds, and
             peak memory over that of a tenth of them

Examples:
  python -m benchmarks.sweep_scaling
  python -m benchmarks.sweep_scaling --parts=many --fake_trials=2000
"""

_PARTS = flags.DEFINE_list(
    "parts", ["workers", "overhead", "many"], "workers, overhead, many."
)
_TRIALS = flags.DEFINE_integer("trials", 4, "real ones.", lower_bound=2)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 400, "of a real trial; 400 take about a minute.", lower_bound=1
)
_FAKE = flags.DEFINE_integer(
    "fake_trials", 10_000, "rounded down to twenties.", lower_bound=200
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def _config(seeds: int, epochs: int) -> ml_collections.ConfigDict:
    from qgen_tf.config import default_config

    config = default_config()
    config.name = "scaling"
    config.dataset.num_train = 512
    config.model.update({"width": 16, "depth": 2})
    config.training.epochs = epochs
    config.quantization.epochs = 1
    config.twins = ()
    config.measures.names = ("average_sharpness", "parameter_norm")
    config.sweep.axes = (("seed", tuple(range(seeds))),)
    return config


def _swept(trials: int, cpus: int) -> float:
    """Returns the seconds of a sweep whose trials have that many cores."""
    from qgen_tf.study import sweep
    from qgen_tf.study.scheduler import Resources

    with tempfile.TemporaryDirectory() as workdir:
        config = _config(trials, _EPOCHS.value)
        begun = time.monotonic()
        outcome = sweep.run(config, workdir, Resources(cpus=cpus))
        seconds = time.monotonic() - begun
    if len(outcome.runs) != trials:
        raise RuntimeError(f"trials failed: {outcome.failed}")
    return seconds


def _bare() -> float:
    """Returns the seconds of the same trials in bare processes."""
    from qgen_tf.study import worker

    with tempfile.TemporaryDirectory() as workdir:
        config = _config(_TRIALS.value, _EPOCHS.value)
        begun = time.monotonic()
        for seed in range(_TRIALS.value):
            config.seed = seed
            here = pathlib.Path.cwd()
            argument = (config, pathlib.Path(workdir), here, 2, True)
            reason = run_apart(worker.work, argument)
            if reason:
                raise RuntimeError(reason)
        return time.monotonic() - begun


def _workers() -> tuple[dict[str, Any], list[Row]]:
    trials = _TRIALS.value
    one = 3600.0 / _swept(1, cpus=1)
    two = 3600.0 * trials / _swept(trials, cpus=1)
    wide = 3600.0 * trials / _swept_by_one()
    what = f"a sweep of {trials} trials"
    return {
        "trials": trials,
        "trials_an_hour_1_worker": one,
        "trials_an_hour_2_workers": two,
        "trials_an_hour_1_worker_of_2_cores": wide,
    }, [
        Row(
            what,
            "trials an hour of two workers over twice those of one",
            Spread(two / one / 2.0),
            at_least=0.9,
        ),
        Row(
            what,
            "trials an hour of two workers over those of one with both cores",
            Spread(two / wide),
            at_least=1.0,
        ),
    ]


def _overhead() -> tuple[dict[str, Any], list[Row]]:
    bare, swept = _bare(), _swept_by_one()
    overhead = Row(
        f"a sweep of {_TRIALS.value} trials",
        "time over that of bare processes",
        Spread(swept / bare),
        at_most=1.05,
    )
    return {
        "trials": _TRIALS.value,
        "seconds_a_bare_trial": bare / _TRIALS.value,
    }, [overhead]


@functools.cache
def _swept_by_one() -> float:
    return _swept(_TRIALS.value, cpus=2)


def _many() -> tuple[dict[str, Any], list[Row]]:
    few, many = (
        run_apart(_sweep_of_fakes, number)  # whose memory is its own
        for number in (_FAKE.value // 10, _FAKE.value)
    )
    what = f"{many['trials']:,} fake trials, records and report"
    return many, [
        Row(
            what,
            "time over 5 minutes",
            Spread(many["seconds_in_all"] / 300.0),
            # the goal is of as many
            at_most=1.0 if many["trials"] >= 10_000 else None,
        ),
        Row(
            what,
            "peak memory over that of a tenth of them",
            Spread(many["peak_megabytes"] / few["peak_megabytes"]),
        ),
    ]


def _sweep_of_fakes(number: int) -> dict[str, Any]:
    from benchmarks import fake_trial
    from qgen_tf import training
    from qgen_tf.study import design, publishing, records, scheduler, trial
    from qgen_tf.study.scheduler import Job, Resources

    with tempfile.TemporaryDirectory() as folder:
        config = _config(1, 1)
        config.twins = ((8, 8), (4, 8), (2, 8))
        templates = {
            training.label(one.config): trial.run(one.config, folder).path
            for one in design.trials(config, folder)
        }
        workdir = pathlib.Path(folder) / "fakes"
        seconds = _Seconds()
        config.sweep.axes = (
            ("training.learning_rate", (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)),
            ("seed", tuple(range(number // 20))),
        )
        planned = seconds.of("design", lambda: design.trials(config, workdir))
        jobs = [
            Job(
                one.path.name,
                (one.config, workdir, templates[training.label(one.config)]),
                one.parent.name if one.parent else None,
            )
            for one in planned
        ]
        resources = Resources()
        with scheduler.cluster(resources):
            state = seconds.of(
                "trials",
                lambda: scheduler.run(
                    jobs, fake_trial.run, resources, fresh_process=False
                ),
            )
        if len(state.done) != len(jobs):
            raise RuntimeError(next(iter(state.failed.values())))
        runs = [training.RunDirectory(one.path) for one in planned]
        frame = seconds.of("records", lambda: records.frame(runs))
        seconds.of(
            "report",
            lambda: publishing.publish(frame, runs, workdir / config.name),
        )
        size = (workdir / config.name / "report.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return {
        "trials": len(jobs),
        "seconds": seconds.taken,
        "seconds_in_all": sum(seconds.taken.values()),
        "report_megabytes": size / 1e6,
        "peak_megabytes": peak,
    }


class _Seconds:
    """Times the parts of something."""

    def __init__(self):
        self.taken: dict[str, float] = {}

    def of(self, name: str, function: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        result = function()
        self.taken[name] = round(time.monotonic() - begun, 1)
        return result


def _main() -> None:
    parts = {"workers": _workers, "overhead": _overhead, "many": _many}
    found, rows = {}, []
    for name in _PARTS.value:
        found[name], more = parts[name]()
        rows += more
        print(name, json.dumps(found[name], indent=2), flush=True)
    finish(_OUTPUT.value, rows, **found)


if __name__ == "__main__":
    program.run(_main, MANUAL, (_PARTS, _TRIALS, _EPOCHS, _FAKE, _OUTPUT))
