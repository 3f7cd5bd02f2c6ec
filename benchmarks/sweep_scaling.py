"""How a sweep scales: with workers, over bare trials, to 10,000 models."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import flags

from qgen_tf.cli import program

MANUAL = """\
Three questions, each answered in one run on a quiet machine:

  workers    the same trials by one and by two workers: efficiency is the
             ratio of their times over two
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
    "fake_trials", 10_000, "rounded down to clusters of 4.", lower_bound=40
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


def _swept(cpus: int) -> float:
    """Returns the seconds of a sweep whose trials have that many cores."""
    from qgen_tf.study import sweep
    from qgen_tf.study.scheduler import Resources

    with tempfile.TemporaryDirectory() as workdir:
        config = _config(_TRIALS.value, _EPOCHS.value)
        begun = time.monotonic()
        outcome = sweep.run(config, workdir, Resources(cpus=cpus))
        seconds = time.monotonic() - begun
    if len(outcome.runs) != _TRIALS.value:
        raise RuntimeError(f"trials failed: {outcome.failed}")
    return seconds


def _bare() -> float:
    """Returns the seconds of the same trials in bare processes."""
    from qgen_tf.study import worker

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as workdir:
        config = _config(_TRIALS.value, _EPOCHS.value)
        begun = time.monotonic()
        for seed in range(_TRIALS.value):
            config.seed = seed
            argument = (config, pathlib.Path(workdir), pathlib.Path.cwd(), 2)
            with concurrent.futures.ProcessPoolExecutor(
                1, mp_context=context
            ) as process:
                reason = process.submit(worker.work, argument).result()
            if reason:
                raise RuntimeError(reason)
        return time.monotonic() - begun


def _workers() -> dict[str, Any]:
    one, two = _swept(2), _swept(1)
    per_hour = 3600.0 * _TRIALS.value
    return {
        "trials": _TRIALS.value,
        "trials_an_hour_1_worker": per_hour / one,
        "trials_an_hour_2_workers": per_hour / two,
        "efficiency": one / two / 2.0,
    }


def _overhead() -> dict[str, Any]:
    bare, swept = _bare(), _swept(2)
    return {
        "trials": _TRIALS.value,
        "seconds_a_bare_trial": bare / _TRIALS.value,
        "overhead": swept / bare - 1.0,
    }


def _many() -> dict[str, Any]:
    few, many = _faked(_FAKE.value // 10), _faked(_FAKE.value)
    return many | {
        "peak_memory_over_a_tenth": many["peak_megabytes"]
        / few["peak_megabytes"]
    }


def _faked(number: int) -> dict[str, Any]:
    """Runs `_sweep_of_fakes` in a process whose memory is its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context
    ) as process:
        return process.submit(_sweep_of_fakes, number).result()


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
    found = {}
    for name in _PARTS.value:
        found[name] = parts[name]()
        print(name, json.dumps(found[name], indent=2), flush=True)
    if _OUTPUT.value:
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    program.run(_main, MANUAL, (_PARTS, _TRIALS, _EPOCHS, _FAKE, _OUTPUT))
