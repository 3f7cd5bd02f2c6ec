"""Records with every column that a report shows, of models nobody trained."""

import numpy as np

from tests.study.statistics import simulated_records

KINDS = ("fog", "gaussian_noise")
SEVERITIES = (1, 5)


def records(*, num_floats=6, stop_at_loss=0.0, model="nin", seed=0):
    """Returns a row for each of `num_floats` float models and three twins."""
    frame = simulated_records.records(
        num_floats=num_floats, model=model, seed=seed
    )
    generator = np.random.default_rng(seed)

    def noise(scale):
        return generator.normal(scale=scale, size=len(frame))

    cluster = frame.groupby("twin_of", sort=False).ngroup()
    number = cluster.astype(str)
    # a study at fixed epochs and one at matched loss share no run
    ending = number + ("-matched" if stop_at_loss else "")
    is_float = frame["bits"] == "float"
    frame = frame.drop(columns=[n for n in frame if "corrupted" in n])
    train = np.minimum(99.0 + noise(0.2), 100.0)
    frame = frame.assign(
        name="simulated",
        run="simulated-" + frame["bits"] + "-" + ending,
        twin_of="simulated-float-" + ending,
        dataset="digits",
        width=np.array([16, 32])[cluster % 2],
        depth=3,
        dropout=0.0,
        learning_rate=np.array([1e-3, 3e-3, 1e-2])[cluster // 2 % 3],
        weight_decay=1e-4,
        batch_size=64,
        optimizer="adamw",
        augmentation="none",
        seed=cluster // 6,
        stop_at_loss=stop_at_loss,
        stopped_at_loss=0.99 * stop_at_loss if stop_at_loss else np.nan,
        num_train=1347,
        num_test=450,
        parameters=12345,
        quantizer=np.where(is_float, None, "lsq"),
        epochs=np.where(is_float, 20, 8),
        train_accuracy=train,
        test_accuracy=train - frame["gap"],
        test_loss=frame["train_loss"] + 0.3,
        loss_gap=-0.3 + noise(0.02),
        verdict=np.array(["same", "cannot tell", "same", "different"])[
            cluster % 4
        ],
        margin=0.5,
        equivalence_p_value=0.01,
        mcnemar_p_value_train=1.0,
        mcnemar_p_value_test=0.5,
        argmax_agreement=100.0 - np.abs(noise(0.1)),
        max_steps=np.where(is_float, 0.0, 1.0),
        max_steps_deployed=np.where(is_float, 0.0, 1.0),
        kilobytes=np.where(is_float, 64.6, 27.7),
        latency_ms=np.where(is_float, 0.9, 0.4),
    )
    for name in ("train_accuracy", "test_accuracy", "test_loss", "loss_gap"):
        frame[f"file_{name}"] = frame[name] + noise(1e-3)
    for prefix in ("", "file_"):
        for name, width in (("gap", 2.0), ("loss_gap", 0.05)):
            frame[f"{prefix}{name}_low"] = frame[f"{prefix}{name}"] - width
            frame[f"{prefix}{name}_high"] = frame[f"{prefix}{name}"] + width
    for name in ("gap", "loss_gap"):
        difference = frame[f"file_{name}"] - frame[name]
        frame[f"{name}_difference"] = difference
        frame[f"{name}_difference_low"] = difference - 0.1
        frame[f"{name}_difference_high"] = difference + 0.1
    for name in (
        "average_sharpness",
        "pac_bayes_sigma",
        "generalization_bound",
        "regularization_hessian",
    ):
        frame[f"{name}_standard_error"] = 0.05 * frame[name].abs()
        frame[f"{name}_converged"] = True
    for name in ("noise_power", "predicted_noise_power"):
        frame[name] = frame[name].fillna(0.0)
    for kind in KINDS:
        for severity in SEVERITIES:
            lost = 2.0 * severity + noise(0.1)
            for prefix in ("", "file_"):
                column = f"{prefix}corrupted_{kind}_{severity}"
                gap = frame[f"{prefix}gap"] + lost
                rise = frame[f"{prefix}loss_gap"] - 0.1 * severity
                frame[f"{column}_accuracy"] = train - gap
                frame[f"{column}_loss"] = frame["train_loss"] - rise
                frame[f"{column}_gap"] = gap
                frame[f"{column}_loss_gap"] = rise
    return frame.assign(
        seconds_train=60.0,
        seconds_measure=20.0,
        seconds_export=10.0,
        seconds_corruptions=5.0,
    ).copy()
