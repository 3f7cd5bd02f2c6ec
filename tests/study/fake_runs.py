"""Run directories of models that nobody trained."""

import dataclasses

from qgen_tf import training
from qgen_tf.measures import LayerNoise
from qgen_tf.study import exporting, measuring
from qgen_tf.training import TRAINED_FILE, RunDirectory

_DIGEST = "0123"
_NOISE = LayerNoise(
    layer="conv",
    num_bits=4,
    num_weights=64,
    step_size=0.125,
    step_size_min=0.125,
    step_size_max=0.125,
    noise_power=0.5,
    predicted_noise_power=0.25,
    uniform_distance=0.1,
    clipped=0.0,
    weight_correlation=0.0,
)
_QUANTIZATION = """\
layer,kind,weight_bits,weight_step,levels_used,activation_bits,activation_step,\
low,high,note
conv,Conv2D,4,0.125,15,8,0.01,-1.0,1.0,
"""


def make(workdir, config, *, bits=None, train=(98.0, 0.1), test=(90.0, 0.5)):
    """Writes a run that went through every stage.

    Args:
      workdir: folder of run directories.
      config: of the float model.
      bits: of weights and activations of a twin, None for the float model.
      train: accuracy and loss of the trained model on the training set; its
        file has an accuracy of a point less.
      test: the same on the test set; its file has two points less.
    """
    is_float = bits is None
    if not is_float:
        config = training.with_bits(config, *bits)
    run = RunDirectory.create(workdir, config)
    run.write_json(
        TRAINED_FILE,
        {
            "num_train": 200,
            "num_test": 100,
            "parameters": 386,
            "epochs": 3,
            "stopped_at_loss": None if is_float else 0.25,
        },
    )
    gaps = [a - b for a, b in zip(train, test, strict=True)]
    epochs = "epoch,loss,accuracy\n1,2.0,0.5\n2,1.0,0.75\n3,0.5,1.0\n"
    (run.path / "history.csv").write_text(epochs)
    run.write_json(
        measuring.MEASURES_FILE,
        {
            "train": dict(zip(("accuracy", "loss"), train, strict=True)),
            "test": dict(zip(("accuracy", "loss"), test, strict=True)),
            "gap": _gap(*gaps),
            "measures": {
                "average_sharpness": {
                    "value": 0.125,
                    "standard_error": 0.5,
                    "converged": True,
                }
            },
            "noise": [] if is_float else [dataclasses.asdict(_NOISE)] * 2,
        },
    )
    if not is_float:
        (run.path / measuring.QUANTIZATION_FILE).write_text(_QUANTIZATION)
    (run.path / "export").mkdir(exist_ok=True)
    (run.path / exporting.MODEL_FILE).write_bytes(b"file")
    run.write_json(
        exporting.VERIFICATION_FILE,
        {
            "sha256": _DIGEST,
            "verdict": "same",
            "train": _agreement(train[0] - 1.0, train[1], 0.5),
            "test": _agreement(test[0] - 2.0, test[1], 0.75),
            "tflite_gap": _gap(gaps[0] + 1.0, gaps[1]),
            "difference": _gap(1.0, 0.0),
            "equivalence": {"margin": 0.5, "p_value": 0.01},
            "num_bytes": 4500,
            "latency_ms": {"p50": 0.25, "p90": 0.5},
        },
    )
    return run


def distort(run, *, digest=_DIGEST):
    """Adds what one corrupted test set does to a run."""
    found = {"accuracy": 80.0, "loss": 1.5}
    found |= {"file_accuracy": 79.0, "file_loss": 1.75}
    run.write_json(
        "corruptions.json",
        {
            "sha256": digest,
            "sets": [{"kind": "fog", "severity": 3, **found}],
        },
    )


def _gap(accuracy, loss):
    return {
        name: {"value": value, "low": value - 1.0, "high": value + 2.0}
        for name, value in (("accuracy", accuracy), ("loss", loss))
    }


def _agreement(accuracy, loss, steps):
    return {
        "accuracy": accuracy,
        "loss": loss,
        "mcnemar": {"p_value": steps / 2.0},
        "argmax_agreement": 99.0,
        "max_steps": steps,
        "max_steps_deployed": steps / 3.0,
    }
