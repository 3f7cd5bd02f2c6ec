"""Quantizers: a grid, and the rule by which its step size is learned."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import quant_ops

_MAX_LOG_STEP = 20.0
_MAX_GRADIENT = 0.1

_uncalibrated_allowed = contextvars.ContextVar(
    "uncalibrated_allowed", default=False
)


@contextlib.contextmanager
def allow_uncalibrated() -> Iterator[None]:
    """Lets quantizers without a step size be called: while a model is built."""
    token = _uncalibrated_allowed.set(True)
    try:
        yield
    finally:
        _uncalibrated_allowed.reset(token)


@dataclasses.dataclass
class Observer:
    """Statistics of the values that an activation quantizer has seen.

    Attributes:
      count: number of values.
      sum_abs: sum of their absolute values.
      max_abs: largest absolute value.
    """

    count: int = 0
    sum_abs: float = 0.0
    max_abs: float = 0.0

    def update(self, values: np.ndarray) -> None:
        """Adds the values of a batch."""
        magnitudes = np.abs(values)
        self.count += magnitudes.size
        self.sum_abs += float(magnitudes.sum(dtype=np.float64))
        self.max_abs = max(self.max_abs, float(magnitudes.max(initial=0.0)))


class _LSQ(tfmot.quantization.keras.quantizers.Quantizer):
    """What the LSQ quantizers of weights and of activations share.

    The step size is stored as its logarithm, kept between -20 and 20: no
    update can make it zero or negative. The gradient of the logarithm is
    scaled such that plain gradient descent changes the step size, relative to
    itself, as LSQ does: by `g * dL/ds / s`, with `g = 1 / sqrt(N * high)`
    (section 2.2). Beyond 0.1 this gradient is clipped: where many weights are
    outside of the range of 8 bits it exceeds 100, and gradient descent at a
    learning rate of 0.01 would diverge.
    """

    def __init__(self, num_bits: int, *, signed: bool, narrow: bool):
        self.num_bits = num_bits
        self.low, self.high = quant_ops.level_range(
            num_bits, signed=signed, narrow=narrow
        )

    def step_size(self, weights: dict[str, tf.Variable]) -> tf.Tensor:
        """Returns the step size: a scalar, or one for each channel."""
        return tf.exp(weights["log_step"])

    def _add_log_step(self, name, layer, initial) -> dict[str, tf.Variable]:
        variable = layer.add_weight(
            name=f"{name}_log_step",
            shape=initial.shape,
            initializer=lambda shape, dtype: tf.cast(initial, dtype),
            dtype=tf.float32,
            trainable=True,
            constraint=lambda log_step: tf.clip_by_value(
                log_step, -_MAX_LOG_STEP, _MAX_LOG_STEP
            ),
        )
        return {"log_step": variable}

    def _quantize(self, inputs, log_step, values_per_step: int) -> tf.Tensor:
        # A custom gradient takes tensors only: no variable of several replicas.
        log_step = tf.convert_to_tensor(log_step)
        g = 1.0 / math.sqrt(values_per_step * self.high)
        step_size = tf.exp(
            quant_ops.scale_gradient(
                log_step, g * tf.exp(-2.0 * log_step), _MAX_GRADIENT
            )
        )
        quantized = quant_ops.quantize(
            tf.cast(inputs, tf.float32), step_size, self.low, self.high
        )
        return tf.cast(quantized, inputs.dtype)


@keras.utils.register_keras_serializable(package="qgen_tf")
class LSQWeightQuantizer(_LSQ):
    """LSQ of weights (Esser et al. 2020, arXiv 1902.08153).

    Levels are signed and narrow. The first step sizes come from the weights
    that the layer has when it is wrapped.

    Attributes:
      num_bits: 2..8.
      axes: axes of the weight that have a step size for each index; () for
        one step size in all.
    """

    def __init__(self, num_bits: int, *, axes: tuple[int, ...] = ()):
        super().__init__(num_bits, signed=True, narrow=True)
        self.axes = tuple(axes)

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        """Creates the step sizes; called by tfmot's wrapper `layer`.

        Args:
          tensor_shape: shape of the weight.
          name: name of the weight in the wrapped layer, such as "kernel".
          layer: the wrapper, which owns the new variable.
        """
        (weight,) = (
            variable
            for variable in layer.layer.weights
            if variable.name.split(":")[0].split("/")[-1] == name
        )
        magnitudes = tf.abs(tf.convert_to_tensor(weight))
        own = [axis % len(tensor_shape) for axis in self.axes]
        shared = [axis for axis in range(len(tensor_shape)) if axis not in own]
        initial = quant_ops.initial_step_size(
            tf.reduce_mean(magnitudes, shared, keepdims=bool(own)),
            tf.reduce_max(magnitudes, shared, keepdims=bool(own)),
            self.high,
        )
        return self._add_log_step(name, layer, tf.math.log(initial))

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        """Returns the weight on its grid."""
        log_step = weights["log_step"]
        per_step = inputs.shape.num_elements() // log_step.shape.num_elements()
        return self._quantize(inputs, log_step, per_step)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"num_bits": self.num_bits, "axes": self.axes}


@keras.utils.register_keras_serializable(package="qgen_tf")
class LSQActivationQuantizer(_LSQ):
    """LSQ of activations, one step size a tensor.

    The step size is NaN until `qgen_tf.calibrate` has shown the model data; to
    run the model before is an error.

    Attributes:
      num_bits: 2..8.
      signed: whether values on both sides of zero have levels; False after a
        ReLU.
      observer: while calibration runs, the statistics seen so far, from which
        the step size is set at every call; else None.
    """

    def __init__(self, num_bits: int, *, signed: bool):
        super().__init__(num_bits, signed=signed, narrow=False)
        self.signed = signed
        self.observer: Observer | None = None

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        """Creates a step size that is not yet known."""
        return self._add_log_step(name, layer, tf.constant(math.nan))

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        """Returns the activations on their grid."""
        log_step = weights["log_step"]
        if self.observer is not None:
            self.observer.update(inputs.numpy())
            step_size = quant_ops.initial_step_size(
                tf.constant(
                    self.observer.sum_abs / self.observer.count, tf.float32
                ),
                tf.constant(self.observer.max_abs, tf.float32),
                self.high,
            )
            log_step.assign(tf.math.log(step_size))
        _require_calibrated(log_step)
        features = math.prod(inputs.shape[1:])
        return self._quantize(inputs, log_step, features)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"num_bits": self.num_bits, "signed": self.signed}


def _require_calibrated(log_step: tf.Variable) -> None:
    """Raises a ModelError if the step size is not known yet.

    Looks at the value once a trace, outside the graph: no cost at run time.
    """
    if _uncalibrated_allowed.get():
        return
    with tf.init_scope():
        if np.isnan(log_step.numpy()).any():
            raise errors.ModelError(
                f"the activation quantizer {log_step.name!r} has no step size: "
                "call qgen_tf.calibrate(model, dataset) before you fit, "
                "evaluate or export the model; if you did, training diverged."
            )
