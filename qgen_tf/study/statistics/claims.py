"""The claims of the paper, each a function from records to a verdict.

All tests are paired: a quantized model is compared with the float model that
it was trained from. These, with all their twins, are the independent clusters
that intervals and p-values count, not the models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pandas as pd

from qgen_tf.study.statistics import claim_tests, orientation, verdicts
from qgen_tf.study.statistics.claim_tests import Settings
from qgen_tf.study.statistics.evidence import Evidence
from qgen_tf.study.statistics.verdicts import Verdict


def gap_shrinks(records: pd.DataFrame, settings: Settings) -> Verdict:
    """Claim 1: the gap shrinks as bits fall.

    Effect: the mean over clusters of the least-squares slope of the accuracy
    gap against log2(32 / weight bits), in points a halving of the bits. The
    claim has it below 0.
    """
    return _weigh(
        1,
        "The generalization gap shrinks as bits fall.",
        {"": functools.partial(claim_tests.gap_trend, records, settings)},
        settings,
    )


def eight_bits_equal_float(
    records: pd.DataFrame, settings: Settings
) -> Verdict:
    """Claim 2: 8 bits equals float in gap.

    Effect: the mean over clusters of gap at 8 bits (weights, and activations
    unless they are float) minus gap of the float twin, in points. The claim
    has it within the margin: two one-sided tests.
    """
    return _weigh(
        2,
        "Models of 8 bits have the gap of their float twins.",
        {"": functools.partial(claim_tests.eight_bits, records, settings)},
        settings,
    )


def minima_are_flatter(records: pd.DataFrame, settings: Settings) -> Verdict:
    """Claim 3: quantized minima are flatter, by each measure.

    Effect, for each measure: the mean over clusters, and over the twins of
    each, of

        (q - f) / (|q| + |f|)

    q the sharpness of the quantized and f of the float model, which lies in
    [-1, 1] whatever their unit and is tanh(log(q / f) / 2) where both are
    positive. The claim has it below 0; a measure that is larger for flatter
    minima is turned round.
    """
    names = [name for name in orientation.FLATNESS if name in records]
    return _weigh(
        3,
        "Quantized minima are flatter than float ones, by each measure.",
        {
            name: functools.partial(
                claim_tests.flatness, records, settings, name
            )
            for name in names or orientation.FLATNESS[:1]
        },
        settings,
    )


def training_loss_rises(records: pd.DataFrame, settings: Settings) -> Verdict:
    """Claim 4: training loss rises as bits fall.

    Effect: as that of claim 1, of the training loss, in nats a halving of the
    bits. The claim has it above 0.
    """
    return _weigh(
        4,
        "The training loss rises as bits fall.",
        {"": functools.partial(claim_tests.loss_trend, records, settings)},
        settings,
    )


def noise_follows_bin_width(
    records: pd.DataFrame, settings: Settings
) -> Verdict:
    """Claim 5: noise power follows bin width.

    Effect: the mean over clusters of the least-squares slope of the log of the
    measured noise power ||latent - rounded||^2 against the log of that of
    uniform noise, the sum of s^2 / 12 over weights of bin width s. The claim
    has it above 0; if the noise is uniform it is 1. Within a cluster the
    number of weights is the same, so size plays no part.
    """
    return _weigh(
        5,
        "The power of quantization noise follows the bin width.",
        {"": functools.partial(claim_tests.noise, records, settings)},
        settings,
    )


def regularizer_explains_rise(
    records: pd.DataFrame, settings: Settings
) -> Verdict:
    """Claim 6: the predicted regularizer explains the measured loss rise.

    Effect: Kendall's tau over quantized models of the predicted regularizer,
    the sum of s^2 / 24 C_ii, with the training loss of the model minus that of
    its float twin. The claim has it above 0, with the Hessian for C and with
    the Gauss-Newton matrix, whichever was measured. A twin has been trained
    after rounding, which the prediction knows nothing of: it can explain the
    order, not the value.
    """
    forms = {
        name: form
        for name, form in claim_tests.REGULARIZERS.items()
        if form in records
    }
    return _weigh(
        6,
        "The predicted regularizer explains the measured rise in loss.",
        {
            name: functools.partial(claim_tests.rise, records, settings, form)
            for name, form in (forms or claim_tests.REGULARIZERS).items()
        },
        settings,
    )


def bound_orders_models(records: pd.DataFrame, settings: Settings) -> Verdict:
    """Claim 7: the bound orders models as their gaps do.

    Effect: Kendall's tau over all models of the bound conditioned on the noise
    (`generalization_bound`) with the accuracy gap. The claim has it above 0.
    """
    return _weigh(
        7,
        "The bound orders models as their gaps do.",
        {"": functools.partial(claim_tests.bound, records, settings)},
        settings,
    )


def distorted_gap_is_no_worse(
    records: pd.DataFrame, settings: Settings
) -> Verdict:
    """Claim 8: on distorted data the quantized gap is no worse.

    Effect: the mean over clusters, and over the twins of each, of the mean gap
    to the corrupted test sets of the quantized minus that of the float model,
    in points. The claim has it below the margin: a test of non-inferiority.
    """
    return _weigh(
        8,
        "On distorted data the gap of quantized models is no worse.",
        {"": functools.partial(claim_tests.distorted, records, settings)},
        settings,
    )


def holds_for_files(records: pd.DataFrame, settings: Settings) -> Verdict:
    """Claim 9: all of it holds for the deployed TensorFlow Lite model.

    Claims 1, 2, 4, 6, 7 and 8 with losses, accuracies and gaps of the file in
    the place of the trained model's; and, as two one-sided tests, the mean
    over clusters of the gap of the file minus that of its model, in points,
    within the margin. Weights and bin widths, of which claims 3 and 5 speak,
    are in the file what they are in the model.
    """
    tests = {
        "the gap shrinks": claim_tests.gap_trend,
        "8 bits equal float": claim_tests.eight_bits,
        "training loss rises": claim_tests.loss_trend,
        "the bound orders gaps": claim_tests.bound,
        "distorted data": claim_tests.distorted,
    }
    files = claim_tests.of_files(records)
    parts: dict[str, Callable[[], Evidence]] = {
        "file and model": functools.partial(
            claim_tests.same_gap, records, settings
        )
    }
    for name, test in tests.items():
        parts[name] = functools.partial(test, files, settings)
    for name, form in claim_tests.REGULARIZERS.items():
        if form in records:
            parts[f"the regularizer ({name})"] = functools.partial(
                claim_tests.rise, files, settings, form
            )
    return _weigh(9, "All of it holds for the deployed model.", parts, settings)


def families_are_alike(records: pd.DataFrame, settings: Settings) -> Verdict:
    """Claim 10: convolutional networks and transformers alike.

    Effect: the mean over clusters of convolutional networks minus that of
    transformers, of what quantization does to the gap: gap of the quantized
    minus gap of the float model, averaged over the bits that both families
    have, in points. The claim has it within the margin: two one-sided tests
    with Welch's degrees of freedom.
    """
    return _weigh(
        10,
        "Convolutional networks and transformers behave alike.",
        {"": functools.partial(claim_tests.families, records, settings)},
        settings,
    )


CLAIMS: tuple[Callable[[pd.DataFrame, Settings], Verdict], ...] = (
    gap_shrinks,
    eight_bits_equal_float,
    minima_are_flatter,
    training_loss_rises,
    noise_follows_bin_width,
    regularizer_explains_rise,
    bound_orders_models,
    distorted_gap_is_no_worse,
    holds_for_files,
    families_are_alike,
)


def all(
    records: pd.DataFrame,
    *,
    margin: float = claim_tests.MARGIN,
    confidence: float = claim_tests.CONFIDENCE,
    seed: int = 0,
) -> list[Verdict]:
    """Returns the verdicts on all claims, corrected for all their tests.

    Args:
      records: a row for each model.
      margin: largest difference of two gaps that counts as none, in points.
      confidence: of intervals; 1 - confidence is the probability of any false
        verdict.
      seed: of the bootstrap.

    Raises:
      ConfigError: margin or confidence is out of range.
    """
    settings = Settings(margin, confidence, seed)
    return verdicts.corrected(
        [claim(records, settings) for claim in CLAIMS], confidence=confidence
    )


def _weigh(
    claim: int,
    sentence: str,
    tests: dict[str, Callable[[], Evidence]],
    settings: Settings,
) -> Verdict:
    return verdicts.weigh(
        claim, sentence, tests, confidence=settings.confidence
    )
