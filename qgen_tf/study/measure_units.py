"""Unit and meaning of each measure, for those who read records."""

from __future__ import annotations

_NOISES = {"pac_bayes": "Gaussian noise", "sharpness": "worst-case noise"}
_BASES = {
    "init": "distance from the initial weights",
    "orig": "norm of the weights",
    "flatness": "noise alone",
}


def _jiang2020() -> dict[str, tuple[str, str]]:
    found = {}
    for prefix, noise in _NOISES.items():
        for adaptive in (False, True):
            weight = "|weight|" if adaptive else "weight"
            scaled = " in units of |w|" * adaptive
            for form, basis in _BASES.items():
                found[f"{prefix}_{'mag_' * adaptive}{form}"] = (
                    f"1/{weight}^2" if form == "flatness" else "nats",
                    f"of Jiang et al. 2020: {noise}{scaled}, {basis}",
                )
    return found


# key of qgen_tf.measures.MEASURES -> (unit at its defaults, meaning)
MEASURES: dict[str, tuple[str, str]] = {
    "average_sharpness": ("nats", "mean rise in loss under Gaussian noise"),
    "l2_sharpness": ("nats", "largest rise in loss in an l2 ball"),
    "l2_error_sharpness": ("points", "largest rise in error in an l2 ball"),
    "l2_m_sharpness": ("nats", "l2_sharpness, mean over batches of 128"),
    "adaptive_l2_sharpness": ("nats", "l2_sharpness in units of |w|"),
    "linf_sharpness": ("nats", "largest rise in loss in a box"),
    "linf_error_sharpness": ("points", "largest rise in error in a box"),
    "adaptive_linf_sharpness": ("nats", "linf_sharpness in units of |w|"),
    "sam_sharpness": ("nats", "rise in loss after the ascent step of SAM"),
    "sam_m_sharpness": ("nats", "sam_sharpness, mean over batches of 128"),
    "asam_sharpness": ("nats", "sam_sharpness in units of |w|"),
    "pac_bayes_sigma": ("|weight|", "Gaussian noise that costs 0.1 accuracy"),
    "sharpness_alpha": ("weight", "worst offset that costs 0.1 accuracy"),
    **_jiang2020(),
    "hessian_trace": ("nats/weight^2", "curvature over all directions"),
    "hessian_top_eigenvalue": ("nats/weight^2", "largest curvature"),
    "regularization_hessian": ("nats", "rise in loss by rounding, Hessian"),
    "regularization_gauss_newton": (
        "nats",
        "rise in loss by rounding, Gauss-Newton matrix",
    ),
    "generalization_bound": ("nats", "approximate bound on the expected loss"),
    "parameter_norm": ("weight^2", "sum of the squares of all weights"),
    "distance_from_initialization": (
        "weight^2",
        "squared distance of the weights from the initial ones",
    ),
    "frobenius_product": ("log", "product of squared Frobenius norms"),
    "spectral_product": ("log", "product of squared spectral norms"),
    "path_norm": ("log", "sum over paths of products of squared weights"),
    "margin_percentile": ("logits", "a low percentile of the margins"),
}
