"""The equations of Jiang et al. 2020, worked out by hand."""

import math

import numpy as np
import pytest

from qgen_tf.measures.jiang_equations import Equation

# three weights: ||w||^2 = 6, w - w0 = (1, -2, 0)
W = [np.array([[1.0], [1.0]]), np.array([[2.0]])]
W0 = [np.array([[0.0], [3.0]]), np.array([[2.0]])]
SCALES = {"alpha": 0.5, "sigma": 0.25}
COMPLEXITY = 5.991464547107982 + 10  # log(100 / 0.25)
LOG_6 = 1.791759469228055
LOG_120 = 4.787491742782046  # 6 / 0.05
SIGMA2, ALPHA2, EPSILON2 = 0.0625, 0.25, 1e-6


def _equation(noise, form, adaptive, orig_denominator="init"):
    return Equation(noise, form, adaptive, orig_denominator, 1e-3, 0.05)


def _logs(numerator, *denominators):
    return sum(
        math.log((EPSILON2 + numerator) / (EPSILON2 + denominator)) / 4
        for denominator in denominators
    )


@pytest.mark.parametrize(
    "noise, form, value",
    [
        ("gaussian", "init", 5 / (4 * SIGMA2) + COMPLEXITY),
        ("gaussian", "orig", 6 / (4 * SIGMA2) + COMPLEXITY),
        ("gaussian", "flatness", 16.0),
        ("worst_case", "init", 5 * LOG_6 / (4 * ALPHA2) + COMPLEXITY),
        ("worst_case", "orig", 6 * LOG_6 / (4 * ALPHA2) + COMPLEXITY),
        ("worst_case", "flatness", 4.0),
    ],
)
def test_plain_by_hand(noise, form, value):
    equation = _equation(noise, form, adaptive=False)
    found = equation.value(SCALES, 100, W, W0)
    assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "noise, form, denominator, value",
    [
        (
            "gaussian",
            "init",
            "init",
            _logs((SIGMA2 + 1) * 5 / 3, SIGMA2 * 1, SIGMA2 * 4, 0.0),
        ),
        (
            "gaussian",
            "orig",
            "init",
            _logs((SIGMA2 + 1) * 6 / 3, SIGMA2 * 1, SIGMA2 * 4, 0.0),
        ),
        (
            "gaussian",
            "orig",
            "zero",
            _logs((SIGMA2 + 1) * 6 / 3, SIGMA2 * 1, SIGMA2 * 1, SIGMA2 * 4),
        ),
        (
            "worst_case",
            "init",
            "init",
            _logs((ALPHA2 + 4 * LOG_120) * 5 / 3, ALPHA2 * 1, ALPHA2 * 4, 0.0),
        ),
        (
            "worst_case",
            "orig",
            "zero",
            _logs(
                (ALPHA2 + 4 * LOG_120) * 6 / 3,
                ALPHA2 * 1,
                ALPHA2 * 1,
                ALPHA2 * 4,
            ),
        ),
    ],
)
def test_magnitude_aware_by_hand(noise, form, denominator, value):
    # the third weight has not moved: epsilon keeps its logarithm finite
    equation = _equation(noise, form, True, denominator)
    found = equation.value(SCALES, 100, W, W0)
    assert found == pytest.approx(value + COMPLEXITY, rel=1e-12)


def test_magnitude_aware_flatness_is_that_of_its_scale():
    for noise, value in (("gaussian", 16.0), ("worst_case", 4.0)):
        equation = _equation(noise, "flatness", adaptive=True)
        assert equation.value(SCALES, 100) == value
