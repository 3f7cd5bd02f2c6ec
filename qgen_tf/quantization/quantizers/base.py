"""What all quantizers share: who calls them, and what they tell of a grid.

tfmot's wrapper of a layer calls `build` once, keeps the variables that it
returns, and hands them back in each call. A quantizer of weights sees the
float weight that trains; one of activations sees what its layer puts out.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.quantization import levels
from qgen_tf.quantization.grids import WeightGrid
from qgen_tf.quantization.loss_scale import require_loss_scale
from qgen_tf.quantization.quantizers.observer import Observer
from qgen_tf.quantization.quantizers.variables import (
    LearnedStep,
    Variables,
    add_variable,
    in_float32,
)

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


class WeightQuantizer(tfmot.quantization.keras.quantizers.Quantizer, abc.ABC):
    """Puts a weight on a symmetric grid.

    Attributes:
      num_bits: 1..8; 1 is the sign, times the step size.
      axes: axes of the weight that have a step size for each index; () for
        one step size in all.
      high: largest level of a symmetric grid of all integers.
    """

    def __init__(self, num_bits: int, *, axes: tuple[int, ...] = ()):
        self.num_bits = num_bits
        self.axes = tuple(axes)
        _, self.high = levels.level_range(num_bits, signed=True, narrow=True)

    def build(self, tensor_shape, name, layer) -> Variables:
        """Creates variables; called by tfmot's wrapper `layer`.

        Args:
          tensor_shape: shape of the weight.
          name: name of the weight in the wrapped layer, such as "kernel".
          layer: the wrapper, which owns new variables.
        """
        del tensor_shape, name, layer
        return {}

    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        """Returns the weight on its grid, in the type the layer computes in."""
        _require_trainable(inputs, training)
        quantized = self.quantize(in_float32(inputs), weights)
        return tf.cast(quantized, inputs.dtype)

    @abc.abstractmethod
    def quantize(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the float32 weight on its grid."""

    @abc.abstractmethod
    def step_size(self, weight: tf.Tensor, variables: Variables) -> tf.Tensor:
        """Returns the step size: a scalar, or one for each channel."""

    @property
    def stride(self) -> int:
        """Distance of two neighbouring levels, in step sizes."""
        return 2 if self.num_bits == 1 else 1

    @property
    def largest_level(self) -> int:
        """Largest integer level: that of `num_bits`, or of odd multiples."""
        return 2**self.num_bits - 1 if self.stride == 2 else self.high

    def latent(self, weight: tf.Tensor) -> tf.Tensor:
        """Returns what is rounded: the weight, or a function of it."""
        return weight

    def grid(self, weight: tf.Variable, variables: Variables) -> WeightGrid:
        """Returns the integers that the weight has in a deployed network."""
        weight = in_float32(weight)
        step_size = self.step_size(weight, variables).numpy()
        levels = np.rint(self.quantize(weight, variables).numpy() / step_size)
        return WeightGrid(
            levels.astype(np.int8),
            step_size,
            self.num_bits,
            latent=self.latent(weight).numpy(),
            stride=self.stride,
        )

    def shared_axes(self, rank: int) -> list[int]:
        """Returns the axes over which a step size is shared."""
        own = [axis % rank for axis in self.axes]
        return [axis for axis in range(rank) if axis not in own]

    def reduce(self, function: Any, weight: tf.Tensor) -> tf.Tensor:
        """Reduces a weight to one value for each step size."""
        axes = self.shared_axes(weight.shape.rank)
        return function(weight, axes, keepdims=bool(self.axes))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"num_bits": self.num_bits, "axes": self.axes}


class ActivationQuantizer(
    LearnedStep, tfmot.quantization.keras.quantizers.Quantizer, abc.ABC
):
    """Puts activations on a grid of one step size a tensor.

    The levels are `-zero_point .. 2^b - 1 - zero_point`. The step size is NaN
    until `qgen_tf.calibrate` has shown the model data; to run the model before
    is an error.

    Attributes:
      num_bits: 2..8.
      signed: whether values on both sides of zero have levels (zero point
        `2^(b-1)`, else 0); None to decide when the data is seen. False says
        that no value is below zero, as behind a ReLU.
      span: largest level minus smallest level.
      observer: while calibration runs, what was seen so far; else None.
    """

    trains_step = True
    trains_zero_point = False

    def __init__(self, num_bits: int, *, signed: bool | None):
        self.num_bits = num_bits
        self.signed = signed
        _, self.span = levels.level_range(num_bits, signed=False, narrow=False)
        self.observer: Observer | None = None

    def build(self, tensor_shape, name, layer) -> Variables:
        """Creates a grid that is not yet known; called by tfmot's wrapper.

        Args:
          tensor_shape: shape of the activations.
          name: "output".
          layer: the wrapper, which owns new variables.
        """
        return {
            "log_step": self.add_log_step(
                layer, name, tf.constant(np.nan), trainable=self.trains_step
            ),
            "zero_point": add_variable(
                layer,
                f"{name}_zero_point",
                float(self._symmetric_zero_point(minimum=-1.0)),
                limits=(0.0, float(self.span)),
                trainable=self.trains_zero_point,
            ),
        }

    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        """Returns the activations on their grid, in the type of the inputs."""
        _require_trainable(inputs, training)
        values = tf.cast(inputs, tf.float32)
        if self.observer is not None:
            self.observer.update(values.numpy())
            if not self.observer.is_finite:
                return inputs  # whoever calibrates says so
            self.calibrate(self.observer, weights)
        _require_calibrated(weights)
        return tf.cast(self.quantize(values, training, weights), inputs.dtype)

    @abc.abstractmethod
    def quantize(
        self, values: tf.Tensor, training: bool, variables: Variables
    ) -> tf.Tensor:
        """Returns float32 values on their grid."""

    def calibrate(self, observer: Observer, variables: Variables) -> None:
        """Sets the grid by what was seen: LSQ's rule, within the range."""
        zero_point = self._symmetric_zero_point(observer.minimum)
        step_size = levels.initial_step_size(
            tf.constant(observer.mean_abs, tf.float32),
            tf.constant(observer.max_abs, tf.float32),
            self.span - zero_point,
        )
        self.assign_step_size(variables, step_size)
        variables["zero_point"].assign(float(zero_point))

    def level_bounds(
        self, variables: Variables
    ) -> tuple[int, int] | tuple[tf.Tensor, tf.Tensor]:
        """Returns the end levels, as integers where they are known."""
        if self.signed is None:
            zero_point = tf.convert_to_tensor(variables["zero_point"])
        else:
            zero_point = self._symmetric_zero_point(minimum=0.0)
        return -zero_point, self.span - zero_point

    def grid(self, variables: Variables) -> tuple[float, int]:
        """Returns step size (NaN before calibration) and zero point."""
        zero_point = round(float(variables["zero_point"].numpy()))
        return float(self.stored_step_size(variables)), zero_point

    def _symmetric_zero_point(self, minimum: float) -> int:
        """Returns 0 for unsigned levels, else half of them."""
        signed = minimum < 0.0 if self.signed is None else self.signed
        return 2 ** (self.num_bits - 1) if signed else 0

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"num_bits": self.num_bits, "signed": self.signed}


def _require_trainable(inputs: tf.Tensor, training: bool) -> None:
    """Raises a ModelError in a training step that would go wrong."""
    if training and not _uncalibrated_allowed.get():
        require_loss_scale(inputs.dtype)


def _require_calibrated(variables: Variables) -> None:
    """Raises a ModelError if a variable is not known yet.

    Looks at the values once a trace, outside the graph: no cost at run time.
    """
    if _uncalibrated_allowed.get():
        return
    with tf.init_scope():
        for variable in variables.values():
            if math.isnan(float(variable.numpy())):
                raise errors.ModelError(
                    f"the activation quantizer {variable.name!r} has no step "
                    "size: call qgen_tf.calibrate(model, dataset) before you "
                    "fit, evaluate or export the model; if you did, training "
                    "diverged."
                )
