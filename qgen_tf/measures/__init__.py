"""Measures of generalization: gap, flatness, curvature, noise."""

import functools
from collections.abc import Callable

from qgen_tf.measures.bit_allocation import BitSuggestion, suggest_bits
from qgen_tf.measures.bound import generalization_bound
from qgen_tf.measures.curvature import hessian_top_eigenvalue, hessian_trace
from qgen_tf.measures.density import SpectralDensity, spectral_density
from qgen_tf.measures.evaluate import Evaluation, evaluate, predictor
from qgen_tf.measures.gauss_newton import layer_gauss_newton_traces
from qgen_tf.measures.generalization_gap import (
    GeneralizationGap,
    Interval,
    gap_difference,
    generalization_gap,
)
from qgen_tf.measures.hessian import LayerTrace, layer_traces
from qgen_tf.measures.jiang import jiang2020
from qgen_tf.measures.landscape import Landscape, loss_landscape
from qgen_tf.measures.losses import CrossEntropy, cross_entropy
from qgen_tf.measures.margins import margin_percentile, margins
from qgen_tf.measures.noise import LayerNoise, layer_noise
from qgen_tf.measures.norms import (
    distance_from_initialization,
    frobenius_product,
    parameter_norm,
    spectral_product,
)
from qgen_tf.measures.pac_bayes import pac_bayes_sigma
from qgen_tf.measures.path_norm import path_norm
from qgen_tf.measures.predicted_rise import LossRise, loss_rises
from qgen_tf.measures.regularization import regularization
from qgen_tf.measures.result import MeasureResult
from qgen_tf.measures.sam import sam_sharpness
from qgen_tf.measures.sharpness import average_sharpness
from qgen_tf.measures.sharpness_alpha import sharpness_alpha
from qgen_tf.measures.spectrum import Eigenvalues, top_eigenvalues
from qgen_tf.measures.weights import of_layer
from qgen_tf.measures.worst_case import worst_case_sharpness
from qgen_tf.sharing import shared

# The published epsilon of 1e-3 suits Gaussian noise. All weights at once, in
# the worst direction, may cost the whole accuracy that far away.
_JIANG2020 = {
    f"{prefix}_{'mag_' * adaptive}{form}": functools.partial(
        jiang2020, noise=noise, form=form, adaptive=adaptive, epsilon=epsilon
    )
    for prefix, noise, epsilon in (
        ("pac_bayes", "gaussian", 1e-3),
        ("sharpness", "worst_case", 1e-5),
    )
    for adaptive in (False, True)
    for form in ("init", "orig", "flatness")
}

# Each result is named as its key; settings that are fixed here may be given
# again. See the functions for what they are.
MEASURES: dict[str, Callable[..., MeasureResult]] = {
    "average_sharpness": average_sharpness,
    "l2_sharpness": worst_case_sharpness,
    "l2_error_sharpness": functools.partial(worst_case_sharpness, of="error"),
    "l2_m_sharpness": functools.partial(
        worst_case_sharpness, m=128, num_restarts=2
    ),
    "adaptive_l2_sharpness": functools.partial(
        worst_case_sharpness, adaptive=True
    ),
    "linf_sharpness": functools.partial(worst_case_sharpness, norm="linf"),
    "linf_error_sharpness": functools.partial(
        worst_case_sharpness, norm="linf", of="error"
    ),
    "adaptive_linf_sharpness": functools.partial(
        worst_case_sharpness, norm="linf", adaptive=True
    ),
    "sam_sharpness": sam_sharpness,
    "sam_m_sharpness": functools.partial(sam_sharpness, m=128),
    "asam_sharpness": functools.partial(sam_sharpness, adaptive=True, rho=0.5),
    "pac_bayes_sigma": pac_bayes_sigma,
    "sharpness_alpha": sharpness_alpha,
    **_JIANG2020,
    "hessian_trace": hessian_trace,
    "hessian_top_eigenvalue": hessian_top_eigenvalue,
    "regularization_hessian": functools.partial(
        regularization, curvature="hessian"
    ),
    "regularization_gauss_newton": functools.partial(
        regularization, curvature="gauss_newton"
    ),
    "generalization_bound": generalization_bound,
    "parameter_norm": parameter_norm,
    "distance_from_initialization": distance_from_initialization,
    "frobenius_product": frobenius_product,
    "spectral_product": spectral_product,
    "path_norm": path_norm,
    "margin_percentile": margin_percentile,
}

__all__ = [
    "MEASURES",
    "BitSuggestion",
    "CrossEntropy",
    "Eigenvalues",
    "Evaluation",
    "GeneralizationGap",
    "Interval",
    "Landscape",
    "LayerNoise",
    "LayerTrace",
    "LossRise",
    "MeasureResult",
    "SpectralDensity",
    "average_sharpness",
    "cross_entropy",
    "distance_from_initialization",
    "evaluate",
    "frobenius_product",
    "gap_difference",
    "generalization_bound",
    "generalization_gap",
    "hessian_top_eigenvalue",
    "hessian_trace",
    "jiang2020",
    "layer_gauss_newton_traces",
    "layer_noise",
    "layer_traces",
    "loss_landscape",
    "loss_rises",
    "margin_percentile",
    "margins",
    "of_layer",
    "pac_bayes_sigma",
    "parameter_norm",
    "path_norm",
    "predictor",
    "regularization",
    "sam_sharpness",
    "shared",
    "sharpness_alpha",
    "spectral_density",
    "spectral_product",
    "suggest_bits",
    "top_eigenvalues",
    "worst_case_sharpness",
]
