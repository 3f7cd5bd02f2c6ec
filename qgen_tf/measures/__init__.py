"""Measures of generalization: gap, flatness, noise."""

from collections.abc import Callable

from qgen_tf.measures.evaluate import (
    Evaluation,
    cross_entropy,
    evaluate,
    predictor,
)
from qgen_tf.measures.generalization_gap import (
    GeneralizationGap,
    Interval,
    gap_difference,
    generalization_gap,
)
from qgen_tf.measures.noise import LayerNoise, layer_noise
from qgen_tf.measures.pac_bayes import pac_bayes_sigma
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.sharpness import average_sharpness

MEASURES: dict[str, Callable[..., MeasureResult]] = {
    "average_sharpness": average_sharpness,
    "pac_bayes_sigma": pac_bayes_sigma,
}

__all__ = [
    "MEASURES",
    "Evaluation",
    "GeneralizationGap",
    "Interval",
    "LayerNoise",
    "MeasureResult",
    "average_sharpness",
    "cross_entropy",
    "evaluate",
    "gap_difference",
    "generalization_gap",
    "layer_noise",
    "pac_bayes_sigma",
    "predictor",
]
