"""`qgen-train`: trains one model."""

from __future__ import annotations

from qgen_tf.cli import program

MANUAL = """\
Trains the model of a config into a run directory, or goes on where a killed
training stopped. A quantized model is fine-tuned from the float model of the
same config, which is trained first if it is not there.

Examples:
  qgen-train --config=quickstart
      the float model of the quick start
  qgen-train --config=cifar10_nin --config.quantization.weight_bits=4 \\
      --config.quantization.activation_bits=8 --workdir=runs
      a network in network on CIFAR-10 with 4-bit weights
  qgen-train --config=my_notes/pets.py --config.seed=3
      a config of your own; start it from qgen_tf.config.default_config()
"""

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir()


def _main() -> None:
    config = program.require_config(_CONFIG)
    from qgen_tf import training

    training.make_deterministic(config.seed)
    print(training.train(config, _WORKDIR.value).path)


def main() -> None:
    """Runs the program."""
    program.run(_main, MANUAL, (_CONFIG, _WORKDIR))


if __name__ == "__main__":
    main()
