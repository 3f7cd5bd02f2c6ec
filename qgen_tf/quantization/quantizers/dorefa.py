"""DoReFa: weights on a half-step grid, activations on a fixed one.

Zhou et al. 2016, arXiv 1606.06160, sections 2.3 and 2.4.
"""

from __future__ import annotations

import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import levels, quant_ops
from qgen_tf.quantization.quantizers.base import WeightQuantizer
from qgen_tf.quantization.quantizers.fixed import CalibratedActivationQuantizer
from qgen_tf.quantization.quantizers.variables import Variables

_MAX_ODD_BITS = 7


@keras.utils.register_keras_serializable(package="qgen_tf")
class DoReFaWeightQuantizer(WeightQuantizer):
    """DoReFa of weights: `M (2 q / n - 1)`, `q = round(n (t / 2M + 1/2))`.

    Here `t = tanh(w)`, M is the largest |t| (its gradient is not taken) and
    `n = 2^b - 1` (equation 9). The paper leaves the factor M in front away,
    which a BatchNorm behind the layer undoes; with it a pretrained layer keeps
    its scale.

    The levels are the odd integers from -n to n, times the step size `M / n`:
    there is no zero, and they are stored in one bit more. Nine bits do not fit
    into int8: with 8 bits the levels are all integers from -127 to 127, times
    `M / 127`. One bit is the sign, times the mean magnitude (section 2.3).
    """

    @property
    def stride(self) -> int:
        """Distance of two neighbouring levels, in step sizes."""
        return 2 if self.num_bits <= _MAX_ODD_BITS else 1

    def latent(self, weight: tf.Tensor) -> tf.Tensor:
        """Returns what is rounded: the weight (one bit) or its tanh."""
        return weight if self.num_bits == 1 else tf.tanh(weight)

    def step_size(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the step size: a scalar, or one for each channel."""
        magnitudes = tf.stop_gradient(tf.abs(self.latent(weight)))
        if self.num_bits == 1:
            mean_abs = self.reduce(tf.reduce_mean, magnitudes)
            return levels.positive_step_size(mean_abs, 1)
        last = self.largest_level
        largest = self.reduce(tf.reduce_max, magnitudes)
        return levels.positive_step_size(largest / last, last)

    def quantize(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the float32 weight on its grid."""
        step_size = self.step_size(weight, variables)
        if self.num_bits == 1:
            signs = tf.where(weight >= 0.0, tf.ones_like(weight), -1.0)
            return quant_ops.straight_through(weight, signs * step_size)
        latent = self.latent(weight)
        ratio = latent / step_size
        if self.stride == 1:
            levels = tf.clip_by_value(tf.round(ratio), -self.high, self.high)
        else:
            last = float(self.largest_level)
            halves = tf.clip_by_value((ratio + last) / 2.0, 0.0, last)
            levels = 2.0 * tf.round(halves) - last
        return quant_ops.straight_through(latent, levels * step_size)


@keras.utils.register_keras_serializable(package="qgen_tf")
class DoReFaActivationQuantizer(CalibratedActivationQuantizer):
    """DoReFa of activations: clipped to a fixed range, and rounded.

    The range of the paper is [0, 1] (equation 11), for networks that are
    trained from scratch inside of it. Here calibration fixes it, so that a
    pretrained network fits.
    """
