"""Which measures speak of flatness, and which way they point."""

from __future__ import annotations

# norms, margins and bounds are no flatness, and the "init" and "orig" forms of
# Jiang et al. mix it with norms
FLATNESS = (
    "average_sharpness",
    "l2_sharpness",
    "l2_error_sharpness",
    "l2_m_sharpness",
    "adaptive_l2_sharpness",
    "linf_sharpness",
    "linf_error_sharpness",
    "adaptive_linf_sharpness",
    "sam_sharpness",
    "sam_m_sharpness",
    "asam_sharpness",
    "pac_bayes_sigma",
    "sharpness_alpha",
    "pac_bayes_flatness",
    "pac_bayes_mag_flatness",
    "sharpness_flatness",
    "sharpness_mag_flatness",
    "hessian_trace",
    "hessian_top_eigenvalue",
)

# a larger value promises a smaller gap: more noise is borne, or a wider margin
LARGER_IS_BETTER = ("pac_bayes_sigma", "sharpness_alpha", "margin_percentile")


def direction(measure: str) -> int:
    """Returns 1 if a larger value promises a larger gap, else -1."""
    return -1 if measure in LARGER_IS_BETTER else 1
