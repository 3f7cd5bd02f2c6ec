"""`qgen-sweep`: float models and their quantized twins, to the report."""

from __future__ import annotations

import os
import sys

from absl import flags

from qgen_tf.cli import execution, program

MANUAL = """\
Trains the float models of a config and their quantized twins (config.twins),
measures, exports and verifies each, on clean and corrupted test sets, and
writes a report. Each model has a process and a run directory of its own. Run
it again after an interruption: it goes on where it stopped, and does nothing
that is done.

Which float models there are, config.sweep says: all combinations of the values
of its axes, or some of them, drawn at random.

Examples:
  qgen-sweep --config=quickstart
      a few minutes on two cores, on scanned digits
  qgen-sweep --config=sweep_quickstart --dry_run
      how many models, how much of it is done, and how long the rest takes
  qgen-sweep --config=cifar10_nin --config.twins='((8, 8), (3, 8))' \\
      --config.sweep.axes='(("seed", (0, 1, 2)),)' --workdir=runs
      three seeds, each with twins of 8-bit and of 3-bit weights
  qgen-sweep --config=sweep_cifar10_nin --retry_failed
      what failed before is tried again
  qgen-sweep --config=sweep_cifar10_nin --workdir=/shared/runs \\
      --ray_address=auto --cpus_per_trial=4 --gpus_per_trial=0.25
      on a Ray cluster whose machines share a folder, four models to a GPU
"""

_FAILED = 1

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir()
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "only says what there is to do and what it costs."
)
_RETRY_FAILED = flags.DEFINE_bool(
    "retry_failed", False, "whether to try again what has failed before."
)
_RAY_ADDRESS = flags.DEFINE_string(
    "ray_address",
    None,
    "of a Ray cluster, such as auto; without it the processes are on this "
    "machine.",
)
_CPUS = flags.DEFINE_integer("cpus_per_trial", 1, "cores that a model has.")
_GPUS = flags.DEFINE_float(
    "gpus_per_trial", 0.0, "GPUs that a model has; fractions share one."
)

_DETERMINISTIC = execution.define_deterministic()


def _main() -> None:
    config = program.require_config(_CONFIG)
    from qgen_tf.study import cost, publishing, records, sweep
    from qgen_tf.study.scheduler import Resources

    resources = Resources(_RAY_ADDRESS.value, _CPUS.value, _GPUS.value)
    if _DRY_RUN.value:
        estimate = cost.estimate(
            config, _WORKDIR.value, retry_failed=_RETRY_FAILED.value
        )
        print(estimate.text(max(1, (os.cpu_count() or 1) // resources.cpus)))
        return
    outcome = sweep.run(
        config,
        _WORKDIR.value,
        resources,
        retry_failed=_RETRY_FAILED.value,
        deterministic=_DETERMINISTIC.value,
    )
    if outcome.runs:
        folder = os.path.join(_WORKDIR.value, config.name)
        frame = records.frame(outcome.runs)
        print(publishing.publish(frame, outcome.runs, folder))
    if outcome.failed:
        lines = [f"  {name}: {why}" for name, why in outcome.failed.items()]
        print(
            f"\n{len(lines)} models failed; --retry_failed tries them again:",
            *lines,
            sep="\n",
            file=sys.stderr,
        )
        sys.exit(_FAILED)


def main() -> None:
    """Runs the program."""
    program.run(
        _main,
        MANUAL,
        (
            _CONFIG,
            _WORKDIR,
            _DRY_RUN,
            _RETRY_FAILED,
            _RAY_ADDRESS,
            _CPUS,
            _GPUS,
            _DETERMINISTIC,
        ),
    )


if __name__ == "__main__":
    main()
