"""Trains under a strategy; prints what there is to compare.

A program of its own, since devices are made before TensorFlow starts:

    python -m tests.training.distributed WORKDIR STRATEGY QUANTIZER POLICY
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf

import export
from qgen_tf import training
from qgen_tf.quantization import inference_model
from qgen_tf.study import measuring
from tests import tiny


def config(quantizer="lsq_plus", policy="float32"):
    """A last batch of 8 in batches of 64, and every aid to low bits."""
    note = training.with_bits(
        tiny.config(
            optimizer="sgd",
            learning_rate=0.1,
            mixed_precision=policy,
            stop_at_loss=1e-6,
        ),
        4,
        8,
    )
    note.dataset.update({"flip": True, "mixup": 0.2})
    note.quantization.update(
        {
            "quantizer": quantizer,
            "epochs": 3,
            # small, since a rounding that falls to the other side is no
            # matter of the last digit
            "learning_rate": 0.005,
            "distillation": 0.5,
            "dampening": 0.01,
            "reestimate_norms": 100,
        }
    )
    note.measures.names = ("average_sharpness",)
    return note


def _use_devices():
    """Makes two devices of the CPU, unless there are GPUs to be seen."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if not tf.config.list_physical_devices("GPU"):
        (cpu,) = tf.config.list_physical_devices("CPU")
        device = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [device, device])


def _trained(note, workdir):
    """Trains; returns the twin as it was when the training ended."""
    finish = training.train.__globals__["_finish"]
    twins = []

    def spying(run, model, *rest):
        twins.append(model)
        finish(run, model, *rest)

    training.train.__globals__["_finish"] = spying
    try:
        run = training.train(note, workdir)
    finally:
        training.train.__globals__["_finish"] = finish
    return run, twins[-1]


def main(workdir, strategy_name, quantizer, policy):
    """Prints one line of JSON."""
    if strategy_name == "mirrored":
        _use_devices()
    strategy = training.get_strategy(strategy_name)
    training.make_deterministic(0)
    note = config(quantizer, policy)
    if strategy_name == "mirrored":
        training.train(note, pathlib.Path(workdir, "one"))
    with strategy.scope():
        run, twin = _trained(note, pathlib.Path(workdir, "more"))
        before = training.load_model(run.path, initial=True).get_weights()
        weights = twin.get_weights()
        file = export.convert(inference_model(twin))
        measuring.measure(run.path, note.measures)
    replicas = [
        [value.numpy() for value in strategy.experimental_local_results(each)]
        for each in twin.variables
    ]
    print(
        json.dumps(
            {
                "num_replicas": strategy.num_replicas_in_sync,
                "run": str(run.path),
                "file": hashlib.sha256(file).hexdigest(),
                # of all variables, in each replica of this process
                "replicas": [
                    hashlib.sha256(
                        b"".join(a.tobytes() for a in arrays)
                    ).hexdigest()
                    for arrays in zip(*replicas, strict=True)
                ],
                "moved": [
                    float(np.abs(new - old).max())
                    for variable, old, new in zip(
                        twin.weights, before, weights, strict=True
                    )
                    if "log_step" in variable.name or "imum" in variable.name
                ],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
