"""The addition of int8 tensors in the arithmetic of the runtime's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization.fixed_point import Multiplier, steps_of

# bits of the larger factor of XNNPACK, but the first
_XNNPACK_BITS = 20
# bits that the runtime's own kernels put behind the levels of the inputs
_HEADROOM = 20


def xnnpack_takes(input_steps: tuple[float, float], output_step: float) -> bool:
    """Whether XNNPACK adds tensors of such step sizes."""
    ratios = [
        np.float32(step) / np.float32(output_step) for step in input_steps
    ]
    return all(2.0**-10 <= ratio < 2.0**8 for ratio in ratios)


class XnnpackAdd(keras.layers.Layer):
    """Adds two tensors, each times a whole number, and divides the sum.

    The larger factor has 21 bits, the other as many binary places; halves are
    rounded up.
    """

    def __init__(
        self,
        input_steps: tuple[float, float],
        output_step: float,
        constant: np.ndarray | None = None,
        **kwargs: Any,
    ):
        """Takes step sizes.

        Args:
          input_steps: of the two tensors.
          output_step: of the sum.
          constant: levels of the second tensor, if it is constant.
          **kwargs: of a layer.
        """
        super().__init__(**kwargs)
        self._input_steps = input_steps
        self._output_step = output_step
        self._constant = constant
        a, b = (np.float32(step) for step in input_steps)
        self._set_ratios(a, b, np.float32(output_step))

    def _set_ratios(
        self, a: np.float32, b: np.float32, output: np.float32
    ) -> None:
        ratios = np.array([a / output, b / output], np.float32)
        _, exponent = np.frexp(ratios.max())
        self._shift = np.int64(_XNNPACK_BITS + 1 - exponent)
        factors = np.ldexp(ratios.astype(np.float64), self._shift)
        self._a, self._b = np.rint(factors).astype(np.int64)

    def _sum(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """Adds steps of the inputs; returns steps of the output, int64."""
        half = np.int64(1) << (self._shift - 1)
        return tf.bitwise.right_shift(
            a * self._a + b * self._b + half, self._shift
        )

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the sum, on its grid but not cut at the ends.

        Args:
          inputs: two tensors, or the first if the second is constant.
        """
        if self._constant is not None:
            a, b = inputs, tf.constant(self._constant, tf.int64)
        else:
            a, b = inputs
            b = steps_of(b, self._input_steps[1])
        steps = self._sum(steps_of(a, self._input_steps[0]), b)
        return tf.cast(steps, a.dtype) * self._output_step


class FixedPointAdd(XnnpackAdd):
    """The same for the runtime's own kernels, with five roundings."""

    def _set_ratios(
        self, a: np.float32, b: np.float32, output: np.float32
    ) -> None:
        unit = 2.0 * max(float(a), float(b))
        self._multipliers = [
            Multiplier.of(float(step) / unit) for step in (a, b)
        ]
        self._divisor = Multiplier.of(unit / 2.0**_HEADROOM / float(output))

    def _sum(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        a, b = (
            multiplier(steps * np.int64(2**_HEADROOM))
            for multiplier, steps in zip(self._multipliers, (a, b), strict=True)
        )
        return self._divisor(a + b)
