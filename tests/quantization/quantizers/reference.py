"""The quantizers in NumPy, in float64, written from their formulas.

`forward` rounds; `surrogate` is the smooth function whose finite differences
are the gradients that training takes: the error of rounding is what it is at
one point and does not change.
"""

import numpy as np


def weight_limits(bits):
    high = max(2 ** (bits - 1) - 1, 1)
    return -high, high


def uniform(values, step, low, high):
    return step * np.clip(np.rint(values / step), low, high)


def uniform_surrogate(values, step, low, high, at):
    """`at` is (values, step) of the point where rounding was done."""
    ratio = at[0] / at[1]
    error = np.rint(np.clip(ratio, low, high)) - np.clip(ratio, low, high)
    return step * (np.clip(values / step, low, high) + error)


def sign(values, step):
    return step * np.where(values >= 0.0, 1.0, -1.0)


def dorefa_weight(weight, shared, bits):
    """Equation 9 of DoReFa, times the largest magnitude of tanh."""
    if bits == 1:
        scale = np.abs(weight).mean(shared, keepdims=True)
        return sign(weight, scale)
    squashed = np.tanh(weight)
    largest = np.abs(squashed).max(shared, keepdims=True)
    if bits == 8:
        step = largest / 127.0
        return step * np.rint(squashed / step)
    n = 2**bits - 1
    quantized = np.rint(n * (squashed / (2 * largest) + 0.5))
    return largest * (2 * quantized / n - 1)


def minmax_weight(weight, shared, bits):
    if bits == 1:
        return sign(weight, np.abs(weight).mean(shared, keepdims=True))
    low, high = weight_limits(bits)
    step = np.abs(weight).max(shared, keepdims=True) / high
    return uniform(weight, step, low, high)


def finite_difference(function, values, direction, width=1e-6):
    """Central difference of a scalar function along a direction."""
    ahead = function(values + width * direction)
    behind = function(values - width * direction)
    return (ahead - behind) / (2.0 * width)
