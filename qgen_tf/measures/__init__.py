"""Measures of generalization: gap, flatness, curvature, noise."""

from collections.abc import Callable

from qgen_tf.measures.bit_allocation import BitSuggestion, suggest_bits
from qgen_tf.measures.evaluate import Evaluation, evaluate, predictor
from qgen_tf.measures.generalization_gap import (
    GeneralizationGap,
    Interval,
    gap_difference,
    generalization_gap,
)
from qgen_tf.measures.hessian import LayerTrace, layer_traces
from qgen_tf.measures.losses import CrossEntropy, cross_entropy
from qgen_tf.measures.noise import LayerNoise, layer_noise
from qgen_tf.measures.pac_bayes import pac_bayes_sigma
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.sharing import shared
from qgen_tf.measures.sharpness import average_sharpness
from qgen_tf.measures.spectrum import Eigenvalues, top_eigenvalues

MEASURES: dict[str, Callable[..., MeasureResult]] = {
    "average_sharpness": average_sharpness,
    "pac_bayes_sigma": pac_bayes_sigma,
}

__all__ = [
    "MEASURES",
    "BitSuggestion",
    "CrossEntropy",
    "Eigenvalues",
    "Evaluation",
    "GeneralizationGap",
    "Interval",
    "LayerNoise",
    "LayerTrace",
    "MeasureResult",
    "average_sharpness",
    "cross_entropy",
    "evaluate",
    "gap_difference",
    "generalization_gap",
    "layer_noise",
    "layer_traces",
    "pac_bayes_sigma",
    "predictor",
    "shared",
    "suggest_bits",
    "top_eigenvalues",
]
