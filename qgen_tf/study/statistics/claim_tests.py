"""The tests behind the claims, each from records to evidence.

A test raises a `MissingError` where columns or models are missing.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from export.verification import MARGIN
from qgen_tf import errors
from qgen_tf.measures.equivalence import require_margin
from qgen_tf.measures.generalization_gap import CONFIDENCE
from qgen_tf.study.statistics import evidence, orientation, paired
from qgen_tf.study.statistics.evidence import Evidence
from qgen_tf.study.statistics.paired import MissingError

CNNS = (
    "efficientnet_b0",
    "keras_resnet50",
    "mobilenet_v2",
    "nin",
    "resnet18",
    "resnet20",
    "resnet50",
)
TRANSFORMERS = (
    "cifar_swin",
    "cifar_vit",
    "deit_small",
    "deit_tiny",
    "swin_tiny",
    "vit_small",
)

REGULARIZERS = {
    "Hessian": "regularization_hessian",
    "Gauss-Newton": "regularization_gauss_newton",
}

_BELOW, _ABOVE = (-math.inf, 0.0), (0.0, math.inf)
_BOUND = "generalization_bound"
# what a deployed file has of its own, with the prefix
_FILE = "file_"
_CORRUPTED = "corrupted_"
_OUTCOMES = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "gap",
    "loss_gap",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What verdicts depend on, beside the records.

    Attributes:
      margin: largest difference of two gaps that counts as none, in points.
      confidence: of intervals; 1 - confidence is the probability of any false
        verdict.
      seed: of the bootstrap.
    """

    margin: float = MARGIN
    confidence: float = CONFIDENCE
    seed: int = 0

    def __post_init__(self):
        require_margin(self.margin)
        if not 0.5 <= self.confidence < 1.0:
            raise errors.ConfigError(
                f"confidence is {self.confidence}: set it to a number from 0.5 "
                "to below 1, such as 0.95."
            )


def of_files(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the records of the deployed files.

    Losses, accuracies and gaps, also of corrupted test sets, are those of the
    files; what the files have none of is not there.
    """
    own = [
        name
        for name in records
        if name in _OUTCOMES or name.startswith(_CORRUPTED)
    ]
    theirs = {
        f"{_FILE}{name}": name for name in own if f"{_FILE}{name}" in records
    }
    return records.drop(columns=own).rename(columns=theirs)


def gap_trend(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 1; see `claims.gap_shrinks`."""
    return _trend(records, settings, "gap", _BELOW, "points a halving of bits")


def loss_trend(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 4; see `claims.training_loss_rises`."""
    return _trend(
        records, settings, "train_loss", _ABOVE, "nats a halving of bits"
    )


def _trend(
    records: pd.DataFrame,
    settings: Settings,
    column: str,
    claimed: tuple[float, float],
    unit: str,
) -> Evidence:
    known = paired.finite(records, [column, "weight_bits"])
    known = known.assign(halvings=paired.halvings(known))
    return _of_slopes(known, settings, "halvings", column, claimed, unit)


def _of_slopes(
    known: pd.DataFrame,
    settings: Settings,
    x: str,
    y: str,
    claimed: tuple[float, float],
    unit: str,
) -> Evidence:
    slopes = paired.slopes(known, x, y)
    sizes = known.groupby(paired.CLUSTER).size()[slopes.index]
    return evidence.of_means(
        [slopes.to_numpy()],
        claimed,
        unit=unit,
        num_pairs=int((sizes * (sizes - 1) // 2).sum()),
        confidence=settings.confidence,
    )


def eight_bits(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 2; see `claims.eight_bits_equal_float`."""
    pairs = paired.twins(records, ["gap"])
    chosen = (pairs["weight_bits"] == 8) & (pairs["activation_bits"] >= 8)
    if not chosen.any():
        raise MissingError("no model of 8 bits has a float twin: train some.")
    pairs = pairs[chosen]
    return _mean(
        pairs, pairs["gap"] - pairs["float_gap"], _within(settings), settings
    )


def flatness(records: pd.DataFrame, settings: Settings, name: str) -> Evidence:
    """Tests claim 3 by one measure; see `claims.minima_are_flatter`."""
    pairs = paired.twins(records, [name])
    ours, theirs = pairs[name], pairs[f"float_{name}"]
    size = (ours.abs() + theirs.abs()).where(lambda total: total > 0.0, 1.0)
    change = orientation.direction(name) * (ours - theirs) / size
    return _mean(pairs, change, _BELOW, settings, unit="(q - f) / (|q| + |f|)")


def noise(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 5; see `claims.noise_follows_bin_width`."""
    columns = ["predicted_noise_power", "noise_power"]
    known = paired.finite(records, columns)
    known = known[(known[columns] > 0.0).all(axis=1)]
    x, y = (f"log {column}" for column in columns)
    known = known.assign(
        **{x: np.log(known[columns[0]]), y: np.log(known[columns[1]])}
    )
    return _of_slopes(
        known, settings, x, y, _ABOVE, "log power a log power of uniform noise"
    )


def rise(records: pd.DataFrame, settings: Settings, form: str) -> Evidence:
    """Tests claim 6 in one form; see `claims.regularizer_explains_rise`."""
    pairs = paired.finite(paired.twins(records, ["train_loss"]), [form])
    measured = pairs["train_loss"] - pairs["float_train_loss"]
    return _order(pairs, pairs[form], measured, settings)


def bound(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 7; see `claims.bound_orders_models`."""
    known = paired.finite(records, [_BOUND, "gap"])
    return _order(known, known[_BOUND], known["gap"], settings)


def distorted(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 8; see `claims.distorted_gap_is_no_worse`."""
    columns = [
        name
        for name in records
        if name.startswith(_CORRUPTED)
        and name.endswith("_gap")
        and not name.endswith("_loss_gap")
    ]
    if not columns:
        raise MissingError(
            "the records have no gap to a corrupted test set: let the sweep "
            "make some."
        )
    pairs = paired.twins(records, columns)
    of_float = pairs[[f"float_{name}" for name in columns]].mean(axis=1)
    return _mean(
        pairs,
        pairs[columns].mean(axis=1) - of_float,
        (-math.inf, settings.margin),
        settings,
    )


def same_gap(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests file against model; see `claims.holds_for_files`."""
    known = paired.finite(records, ["gap", f"{_FILE}gap"])
    return _mean(
        known,
        known[f"{_FILE}gap"] - known["gap"],
        _within(settings),
        settings,
    )


def families(records: pd.DataFrame, settings: Settings) -> Evidence:
    """Tests claim 10; see `claims.families_are_alike`."""
    pairs = paired.twins(records, ["gap"])
    paired.require(records, ["model"])
    families = [
        pairs[pairs["model"].isin(names)] for names in (CNNS, TRANSFORMERS)
    ]
    bits = ["weight_bits", "activation_bits"]
    shared = families[0][bits].merge(families[1][bits]).drop_duplicates()
    samples = []
    for name, family in zip(("CNNs", "transformers"), families, strict=True):
        if family.empty:
            raise MissingError(f"there are no {name} with twins: train some.")
        chosen = family.merge(shared, on=bits)
        samples.append((chosen, chosen["gap"] - chosen["float_gap"]))
    return evidence.of_means(
        [paired.cluster_means(*sample) for sample in samples],
        _within(settings),
        unit="points",
        num_pairs=sum(len(chosen) for chosen, _ in samples),
        confidence=settings.confidence,
    )


def _within(settings: Settings) -> tuple[float, float]:
    return (-settings.margin, settings.margin)


def _mean(
    pairs: pd.DataFrame,
    values: pd.Series,
    claimed: tuple[float, float],
    settings: Settings,
    *,
    unit: str = "points",
) -> Evidence:
    return evidence.of_means(
        [paired.cluster_means(pairs, values)],
        claimed,
        unit=unit,
        num_pairs=len(pairs),
        confidence=settings.confidence,
    )


def _order(
    models: pd.DataFrame,
    prediction: pd.Series,
    outcome: pd.Series,
    settings: Settings,
) -> Evidence:
    return evidence.of_order(
        prediction.to_numpy(),
        outcome.to_numpy(),
        models[paired.CLUSTER].to_numpy(),
        confidence=settings.confidence,
        seed=settings.seed,
    )
