"""What the terminal shows of records, by hand."""

import pandas as pd

from qgen_tf.study import tables
from tests import imports

# the table of README.md, and the numbers behind it
_README = """\
                           float     w8a8     w4a8     w2a8
train acc. [%]             99.93   100.00   100.00    99.78
test acc. [%]              98.00    98.00    97.78    96.67
train loss [nats]         0.0371   0.0144   0.0158   0.0595
test loss [nats]          0.0965   0.0781   0.0786   0.1360
gap [points]                1.93     2.00     2.22     3.11
loss gap [nats]          -0.0594  -0.0638  -0.0628  -0.0764
TFLite gap [points]         1.93     2.00     2.22     3.11
TFLite - Keras [points]     0.00     0.00     0.00     0.00
same gap?                   same     same     same     same
same class, test [%]      100.00   100.00   100.00   100.00
file [kB]                   64.6     27.7     27.7     27.7"""


def _quickstart():
    return pd.DataFrame(
        {
            "twin_of": "quickstart-float",
            "bits": ["float", "w8a8", "w4a8", "w2a8"],
            "train_accuracy": [99.93, 100.0, 100.0, 99.78],
            "test_accuracy": [98.0, 98.0, 97.78, 96.67],
            "train_loss": [0.0371, 0.0144, 0.0158, 0.0595],
            "test_loss": [0.0965, 0.0781, 0.0786, 0.136],
            "gap": [1.93, 2.0, 2.22, 3.11],
            "loss_gap": [-0.0594, -0.0638, -0.0628, -0.0764],
            "file_gap": [1.93, 2.0, 2.22, 3.11],
            "gap_difference": [0.0, 0.0, 0.0, 0.0],
            "verdict": ["same", "same", "same", "same"],
            "argmax_agreement": [100.0, 100.0, 100.0, 100.0],
            "kilobytes": [64.6, 27.7, 27.7, 27.7],
        }
    )


def test_of_one_float_model_each_twin_has_a_column():
    readme = (imports.REPOSITORY / "README.md").read_text()
    assert _README in readme
    assert tables.summary_text(_quickstart()) == _README


def test_of_several_float_models_there_are_means():
    first = _quickstart().assign(weight_bits=[32, 8, 4, 2], activation_bits=8)
    second = first.assign(
        twin_of="other",
        gap=first["gap"] + 1.0,
        verdict="different",
        train_loss=first["train_loss"] + 0.02,
    )
    lone = first.tail(1).assign(twin_of="third", bits="w1a8", weight_bits=1)
    frame = pd.concat([lone, first, second], ignore_index=True)
    table = tables.summary(frame).set_index("model")
    assert list(table.index) == ["float", "w8a8", "w4a8", "w2a8", "w1a8"]
    assert list(table["models"]) == ["2", "2", "2", "2", "1"]
    # of two values the standard error is half of their difference
    assert table["gap [points]"]["float"] == "2.43 ± 0.50"
    assert table["train loss [nats]"]["w4a8"] == "0.0258 ± 0.0100"
    assert table["gap [points]"]["w1a8"] == "3.11"
    assert table["same gap?"]["w2a8"] == "same: 1 of 2"
    assert table["same gap?"]["w8a8"] == "same: 1 of 2"
    first_line, second_line = tables.summary_text(frame).splitlines()[:2]
    assert first_line.split() == ["float", "w8a8", "w4a8", "w2a8", "w1a8"]
    assert second_line.split() == ["models", "2", "2", "2", "2", "1"]


def _gap(value):
    interval = {"value": value, "low": value - 1.0, "high": value + 1.0}
    return {"accuracy": interval, "loss": interval}


def test_what_a_device_found():
    tested = {
        "margin": 0.5,
        "p_value": 0.75,
        "low": 1.5,
        "high": 2.5,
        "equivalent": False,
    }
    split = {
        "accuracy": 62.5,
        "loss": 1.25,
        "mcnemar": {"p_value": 0.03125},
        "equivalence": tested,
        "agreement": {"different_outputs": 6, "max_steps": 2},
    }
    text = tables.device_text(
        {
            "verdict": "different",
            "equivalence": tested,
            "keras_gap": _gap(4.0),
            "tflite_gap": _gap(5.0),
            "device_gap": _gap(6.0),
            "difference": _gap(2.0),
            "file_difference": _gap(1.0),
            "train": split,
            "test": split,
            "machine": {"machine": "aarch64", "cores": 4},
            "num_threads": 3,
            "kernels": "xnnpack",
            "latency_ms": {"p50": 1.5, "p90": 2.25},
            "peak_memory_mb": 112.4,
        }
    )
    equivalence = (
        "equivalent within 0.5 points: not shown, p = 0.75, 90 % interval "
        "[+1.5000, +2.5000]"
    )
    assert text.splitlines() == [
        "same gap on the device: different",
        f"gap: {equivalence}",
        *(
            f"{title}: +{value}.0000 [+{value - 1}.0000, +{value + 1}.0000] "
            f"{unit}"
            for title, value in (
                ("gap of the trained model", 4),
                ("gap of the file, here", 5),
                ("gap of the file, on the device", 6),
                ("device minus model", 2),
                ("device minus file here", 1),
            )
            for unit in ("points", "nats")
        ),
        *(
            line
            for split in ("train", "test")
            for line in (
                f"{split}: accuracy 62.50 %, loss 1.2500 nats, McNemar p = "
                "0.031",
                f"{split}: {equivalence}",
                f"{split}: 6 examples with other outputs than here, by 2 steps "
                "at most",
            )
        ),
        "device: machine aarch64, cores 4; 3 threads, xnnpack; latency p50 "
        "1.50 ms, p90 2.25 ms, peak memory 112 MB",
    ]


def test_one_step_is_not_plural():
    row = {"layer": "add", "max_steps": 1.0, "mean_steps": 0.5, "share": 0.5}
    text = tables.divergence_text([row])
    assert text.startswith(
        "first layer that diverges: add, by 1 step at most, on 50 % of its "
        "values\n"
    )
    assert "0.5" in text.splitlines()[-1]


def test_what_was_measured():
    text = tables.measures_text(
        {
            "source": {"file": "x.tflite"},
            "train": {"accuracy": 98.0, "loss": 0.125},
            "test": {"accuracy": 90.5, "loss": 0.5},
            "gap": _gap(7.5),
            "measures": {
                "average_sharpness": {
                    "value": 0.25,
                    "standard_error": 0.01,
                    "unit": "nats",
                    "converged": True,
                },
                "pac_bayes_sigma": {
                    "value": 0.5,
                    "standard_error": 0.0,
                    "unit": "|weight|",
                    "converged": False,
                },
            },
            "failed": {"path_norm": "no paths"},
            "noise": [{"layer": "conv", "noise_power": 0.0625}],
        }
    )
    assert text.splitlines() == [
        "with the weights of x.tflite",
        "train accuracy  98.00 %  loss 0.1250 nats",
        "test  accuracy  90.50 %  loss 0.5000 nats",
        "gap, train minus test: +7.5000 [+6.5000, +8.5000] points",
        "gap, train minus test: +7.5000 [+6.5000, +8.5000] nats",
        "average_sharpness: 0.25 ± 0.01 nats",
        "pac_bayes_sigma: 0.5 |weight|  (not converged)",
        "path_norm: not taken: no paths",
        "",
        "layer  noise_power",
        " conv       0.0625",
    ]


_TESTED = {
    "margin": 0.5,
    "p_value": 0.04,
    "low": -0.1,
    "high": 0.1,
    "equivalent": True,
}


def test_what_was_verified():
    split = {
        "num_examples": 7,
        "accuracy": 50.0,
        "trained_accuracy": 60.0,
        "argmax_agreement": 99.0,
        "max_steps": 2.0,
        "argmax_agreement_deployed": 100.0,
        "max_steps_deployed": 1.0,
        "equivalence": _TESTED,
        "mcnemar": {"only_ours": 1, "only_theirs": 2, "p_value": 1.0},
    }
    record = {
        "verdict": "same",
        "equivalence": _TESTED,
        "keras_gap": _gap(1.0),
        "tflite_gap": _gap(2.0),
        "difference": _gap(1.0),
        "train": split,
        "test": split,
        "corrupted": None,
        "num_bytes": 7000,
        "settings": {"storage": "int8"},
        "float_operators": [],
        "kernels": "xnnpack",
        "expand_low_bits": False,
        "latency_ms": {"p50": 0.125, "p90": 0.25},
    }
    lines = tables.verification_text(record).splitlines()
    assert lines[0] == "same gap as the trained model: same"
    assert lines[-2] == (
        "file: 7000 bytes, int8 weights, run by xnnpack; in float: nothing"
    )
    assert lines[-1] == (
        "latency: p50 0.125 ms, p90 0.25 ms for an image, on one thread of "
        "this machine"
    )
    del record["latency_ms"]
    assert tables.verification_text(record).splitlines() == lines[:-1]
