"""What the terminal shows of records, by hand."""

from qgen_tf.study import tables


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
