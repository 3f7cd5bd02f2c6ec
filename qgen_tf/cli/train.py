"""`qgen-train`: trains one model."""

from __future__ import annotations

from qgen_tf.cli import execution, program

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
  qgen-train --config=imagenet_resnet50 --strategy=mirrored
      on all GPUs of this machine; docs/guide.md tells of several machines
"""

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir()
_STRATEGY = execution.define_strategy()
_DETERMINISTIC = execution.define_deterministic()


def _main() -> None:
    config = program.require_config(_CONFIG)
    from qgen_tf import training

    with execution.scope(_STRATEGY, _DETERMINISTIC, seed=config.seed):
        print(training.train(config, _WORKDIR.value).path)


def main() -> None:
    """Runs the program."""
    program.run(_main, MANUAL, (_CONFIG, _WORKDIR, _STRATEGY, _DETERMINISTIC))


if __name__ == "__main__":
    main()
