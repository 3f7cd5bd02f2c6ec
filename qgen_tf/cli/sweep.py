"""`qgen-sweep`: a float model and its quantized twins, to the report."""

from __future__ import annotations

from qgen_tf.cli import program

MANUAL = """\
Trains the float model of a config and its quantized twins (config.twins),
measures, exports and verifies each, and writes a report. Run it again after an
interruption: it goes on where it stopped, and does nothing that is done.

Examples:
  qgen-sweep --config=quickstart
      a few minutes on two cores, on scanned digits
  qgen-sweep --config=cifar10_nin --config.twins='((8, 8), (3, 8))' \\
      --workdir=runs
"""

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir()


def _main() -> None:
    config = program.require_config(_CONFIG)
    from qgen_tf import training
    from qgen_tf.study import report, sweep

    if sweep.is_done(config, _WORKDIR.value):
        print("Every model is trained, measured and exported already.\n")
    training.make_deterministic(config.seed)
    runs = sweep.run(config, _WORKDIR.value)
    print(report.write(runs, _WORKDIR.value))


def main() -> None:
    """Runs the program."""
    program.run(_main, MANUAL, (_CONFIG, _WORKDIR))


if __name__ == "__main__":
    main()
