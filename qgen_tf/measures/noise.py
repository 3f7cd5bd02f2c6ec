"""Bin width and quantization noise, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.measures.perturbations import deployed_network
from qgen_tf.quantization.inference import InferenceModel


@dataclasses.dataclass(frozen=True)
class LayerNoise:
    """The noise that rounding adds to one weight of a deployed network.

    The theory takes the noise `latent - values` as uniform on `[-s/2, s/2]`,
    independent of the weights, where s is the bin width: the distance of two
    neighbouring values of the grid. The last three fields say how far that is
    from the truth: at 2 bits it can be far.

    Attributes:
      layer: name.
      num_bits: bits of the weight.
      num_weights: n.
      step_size: mean bin width s over channels.
      step_size_min: smallest bin width of a channel.
      step_size_max: largest.
      predicted_noise_power: `sum over weights of s^2 / 12`.
      noise_power: `||latent - values||^2`, measured.
      uniform_distance: Kolmogorov-Smirnov distance, in [0, 1], of noise / s
        from the uniform distribution on [-1/2, 1/2].
      clipped: share of weights whose noise exceeds s / 2: they lie more than
        half a bin beyond the last value.
      weight_correlation: Pearson correlation of noise and weight.
    """

    layer: str
    num_bits: int
    num_weights: int
    step_size: float
    step_size_min: float
    step_size_max: float
    predicted_noise_power: float
    noise_power: float
    uniform_distance: float
    clipped: float
    weight_correlation: float


def layer_noise(network: keras.Model | InferenceModel) -> list[LayerNoise]:
    """Returns the noise of every quantized weight, in the order of layers.

    Args:
      network: from `qgen_tf.inference_model`, or the model that it is made of;
        a float one gives an empty list.

    Raises:
      ModelError: the model is not Functional, or not calibrated.
    """
    rows = []
    for name, grid in deployed_network(network).weight_grids.items():
        widths = np.broadcast_to(grid.bin_width, grid.levels.shape).astype(
            np.float64
        )
        latent = grid.latent.astype(np.float64)
        noise = latent - grid.values
        in_bins = (noise / widths).reshape(-1)
        rows.append(
            LayerNoise(
                layer=name,
                num_bits=grid.num_bits,
                num_weights=grid.levels.size,
                step_size=float(grid.bin_width.mean()),
                step_size_min=float(grid.bin_width.min()),
                step_size_max=float(grid.bin_width.max()),
                predicted_noise_power=float((widths**2).sum() / 12.0),
                noise_power=float((noise**2).sum()),
                uniform_distance=float(
                    scipy.stats.kstest(in_bins + 0.5, "uniform").statistic
                ),
                clipped=float((np.abs(in_bins) > 0.5 + 1e-4).mean()),
                weight_correlation=_correlation(latent, noise),
            )
        )
    return rows


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation; 0 where one of the two does not vary."""
    if not np.ptp(a) or not np.ptp(b):
        return 0.0
    return float(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1])


def uniform_noise(
    widths: Sequence[np.ndarray], *, seed: int, draw: int
) -> list[tf.Tensor]:
    """Returns the noise of the theory: uniform on `[-s/2, s/2]`, float32.

    Args:
      widths: s, an array in the shape of each weight tensor.
      seed: equal seeds give equal noise, in units of s.
      draw: number of the sample, from 0.
    """
    return [
        tf.random.stateless_uniform(
            width.shape, (seed, draw * len(widths) + index), -0.5, 0.5
        )
        * tf.constant(width, tf.float32)
        for index, width in enumerate(widths)
    ]
