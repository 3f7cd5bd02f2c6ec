"""Records of models that nobody trained, for which the truth is known."""

import dataclasses

import numpy as np
import pandas as pd


@dataclasses.dataclass(frozen=True)
class Truth:
    """What quantization does to a float model; by default, what is claimed.

    Attributes:
      gap: mean change in points, by bits of the weights.
      loss: mean change of the training loss in nats.
      sharpness: mean change of log sharpness.
      distorted: mean change of the gap to corrupted test sets, in points.
      noise: exponent of the noise power in that of uniform noise.
      regularizer: tau-like weight of the loss rise in the regularizer: 1, 0
        or -1.
      bound: the same of the gap in the bound.
      file: mean of gap of the file minus gap of the model, in points.
      spread: standard deviation of all of these from model to model, in the
        units of each.
    """

    gap: dict = dataclasses.field(default_factory=lambda: {8: 0, 4: -2, 2: -4})
    loss: dict = dataclasses.field(
        default_factory=lambda: {8: 0.01, 4: 0.1, 2: 0.4}
    )
    sharpness: dict = dataclasses.field(
        default_factory=lambda: {8: -0.3, 4: -0.5, 2: -0.8}
    )
    distorted: dict = dataclasses.field(
        default_factory=lambda: {8: 0, 4: -1, 2: -1}
    )
    noise: float = 1.0
    regularizer: float = 1.0
    bound: float = 1.0
    file: float = 0.0
    spread: float = 0.1


def records(truth=None, *, num_floats=20, model="nin", seed=0):
    """Returns a row for each of `num_floats` float models and their twins."""
    truth = truth or Truth()
    generator = np.random.default_rng(seed)
    rows = [
        _row(truth, bits, base, generator.normal(scale=truth.spread, size=10))
        | {"model": model, "twin_of": f"{model}-{index}"}
        for index in range(num_floats)
        for base in [generator.normal(size=4)]
        for bits in (32, *truth.gap)
    ]
    return pd.DataFrame(rows)


def _row(truth, bits, base, noise):
    changes = {
        name: getattr(truth, name).get(bits, 0.0)
        for name in ("gap", "loss", "sharpness", "distorted")
    }
    gap = 20.0 + 5.0 * base[0] + changes["gap"] + noise[0]
    rise = changes["loss"] + 0.1 * noise[1] * (bits < 32)
    loss = 1.0 + 0.1 * base[1] + rise
    sharpness = np.exp(base[2] + changes["sharpness"] + noise[2])
    distorted = 30.0 + 5.0 * base[0] + changes["distorted"] + noise[3]
    row = {
        "bits": "float" if bits == 32 else f"w{bits}a8",
        "weight_bits": bits,
        "activation_bits": 32 if bits == 32 else 8,
        "gap": gap,
        "train_loss": loss,
        "average_sharpness": sharpness,
        "pac_bayes_sigma": np.exp(noise[4]) / sharpness,
        "generalization_bound": truth.bound * gap + noise[5],
        "corrupted_fog_3_gap": distorted + noise[6],
        "corrupted_blur_5_gap": distorted - noise[6],
        "corrupted_blur_5_loss_gap": 0.0,
    }
    row |= {
        f"file_{name}": row[name] + truth.file + noise[7]
        for name in ("gap", "corrupted_fog_3_gap", "corrupted_blur_5_gap")
    }
    row["file_train_loss"] = loss + 0.1 * noise[7]
    if bits < 32:
        uniform = np.exp(base[3]) * 4.0**-bits
        row |= {
            "predicted_noise_power": uniform,
            "noise_power": uniform**truth.noise * np.exp(noise[8]),
            "regularization_hessian": truth.regularizer * rise + 0.1 * noise[9],
        }
    return row
