"""`qgen-export`: exports one trained model and verifies the file."""

from __future__ import annotations

from absl import flags

from qgen_tf.cli import program

MANUAL = """\
Exports a trained model to TensorFlow Lite, proves that the file holds the
integers of the trained network, and compares the generalization gap of the
file with that of the model on whole data sets. Writes export/model.tflite and
export/verification.json into the run directory.

Examples:
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd
"""

_RUN_DIR = flags.DEFINE_string("run_dir", None, "written by qgen-train.")


def _main() -> None:
    run_dir = program.require(_RUN_DIR)
    from qgen_tf import training
    from qgen_tf.study import exporting, tables

    training.make_deterministic(seed=0)
    print(tables.verification_text(exporting.export(run_dir)))


def main() -> None:
    """Runs the program."""
    program.run(_main, MANUAL, (_RUN_DIR,))


if __name__ == "__main__":
    main()
