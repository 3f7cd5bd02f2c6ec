"""Losses that help low bits: the float model's opinion, and quiet weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from qgen_tf import compat, errors
from qgen_tf.compat import keras
from qgen_tf.quantization.loss_scale import loss_scale
from qgen_tf.quantization.quantize import wrappers
from qgen_tf.quantization.quantizers import WeightQuantizer
from qgen_tf.quantization.quantizers.variables import Variables, in_float32

Schedule: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


class QATModel(keras.Model):
    """Trains a quantized model on more than its labels.

    The loss is

        (1 - a) L + a T^2 KL(softmax(t / T) || softmax(z / T)) + l(n) D,

    with the compiled loss L, logits z of the model and t of its teacher, share
    a and temperature T of the distillation (Hinton et al. 2015, arXiv
    1503.02531, section 2), and the dampening D of `latent_error`, whose weight
    l may depend on the number n of steps. Regularization losses are added as
    always. `fit` and `evaluate` report this loss.

    The layers are those of `model`: to train one is to train the other, and
    `model` is what to save, measure and deploy.

        student = qgen_tf.QATModel(
            quantized,
            teacher=float_model,
            dampening=qgen_tf.CosineRise(0.1, steps=1000),
        )
        student.compile("adam", loss)
        student.fit(dataset)

    Attributes:
      distillation: a.
      temperature: T.
      dampening: l, a number or a function of the number of steps.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        teacher: keras.Model | None = None,
        distillation: float = 0.5,
        temperature: float = 4.0,
        dampening: float | Schedule = 0.0,
    ):
        """Wraps a model.

        Args:
          model: Functional, from `quantize_model`; returns logits if there is
            a teacher.
          teacher: returns the logits to imitate; it runs in inference mode,
            is not trained and not saved. None for no distillation.
          distillation: share of the teacher in the loss, in [0, 1].
          temperature: positive; a high one compares unlikely classes, too.
          dampening: 0 for none.

        Raises:
          ModelError: one of the two is no Functional model, or the teacher's
            output has another shape.
          ConfigError: a number is out of range.
        """
        check_settings(distillation, temperature, dampening)
        _require_functional(model)
        if teacher is not None:
            _require_functional(teacher)
            if len(model.outputs) > 1:
                raise errors.ModelError(
                    f"model {model.name!r} has {len(model.outputs)} outputs: "
                    "a teacher has one to imitate; leave the others out."
                )
        if teacher is not None and teacher.output_shape != model.output_shape:
            raise errors.ModelError(
                f"the teacher {teacher.name!r} returns "
                f"{teacher.output_shape}, model {model.name!r} returns "
                f"{model.output_shape}: a teacher has the same classes."
            )
        super().__init__(model.input, model.output, name=model.name)
        self.distillation = distillation if teacher is not None else 0.0
        self.temperature = temperature
        self.dampening = dampening
        # Keras trains and saves the models among the attributes, but it does
        # not look into a function.
        self._teach = teacher and (lambda x: teacher(x, training=False))

    def train_step(self, data):
        """Takes a step; quantizers know how the optimizer scales the loss."""
        with loss_scale(self.optimizer):
            return super().train_step(data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """Returns the loss of a batch; see the class."""
        added = list(self.losses)
        if self._teach is not None:
            imitation = distillation_loss(
                tf.stop_gradient(self._teach(x)), y_pred, self.temperature
            )
            weight = 1.0 if sample_weight is None else sample_weight
            weight = tf.cast(weight, tf.float32)
            added.append(self.distillation * tf.reduce_mean(weight * imitation))
            sample_weight = (1.0 - self.distillation) * weight
        if self.dampening:
            added.append(self._dampening_weight() * dampening_loss(self))
        return self.compiled_loss(
            y, y_pred, sample_weight, regularization_losses=added
        )

    def _dampening_weight(self) -> Any:
        if callable(self.dampening):
            return self.dampening(self.optimizer.iterations)
        return self.dampening


class CosineRise(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from 0 to `peak` as half a period of a cosine, and stays there.

    Attributes:
      peak: the last value.
      steps: how long it takes.
    """

    def __init__(self, peak: float, steps: int):
        """Sets the attributes.

        Raises:
          ConfigError: `peak` is negative, or `steps` is not above 0.
        """
        super().__init__()
        if not (errors.is_finite(peak) and peak >= 0):
            raise errors.ConfigError(
                f"peak is {peak!r}: it must be a number, 0 or more."
            )
        if not (errors.is_finite(steps) and steps > 0):
            raise errors.ConfigError(
                f"steps is {steps!r}: it must be a number above 0."
            )
        self.peak = peak
        self.steps = steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the value at a step, counted from 0."""
        done = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return 0.5 * self.peak * (1.0 - tf.cos(math.pi * done))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"peak": self.peak, "steps": self.steps}


def check_settings(
    distillation: float, temperature: float, dampening: float | Schedule
) -> None:
    """Raises a ConfigError for numbers that `QATModel` cannot train with."""
    if not (errors.is_finite(distillation) and 0 <= distillation <= 1):
        raise errors.ConfigError(
            f"distillation is {distillation!r}: it is a share, in [0, 1]."
        )
    if not (errors.is_finite(temperature) and temperature > 0):
        raise errors.ConfigError(
            f"temperature is {temperature!r}: it must be a number above 0."
        )
    if not callable(dampening) and not (
        errors.is_finite(dampening) and dampening >= 0
    ):
        raise errors.ConfigError(
            f"dampening is {dampening!r}: it must be a number, 0 or more, or "
            "a function such as qgen_tf.CosineRise."
        )


def _require_functional(model: object) -> None:
    compat.require_legacy(model)
    if not getattr(model, "_is_graph_network", False):
        raise errors.ModelError(
            f"{model.name!r} is not a Functional model: build it with "  # type: ignore
            "keras.Model(inputs, outputs)."
        )


def distillation_loss(
    teacher_logits: tf.Tensor, logits: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Returns `T^2 KL(softmax(t / T) || softmax(z / T))` of each example.

    The factor keeps the size of the gradients as the temperature varies.

    Args:
      teacher_logits: t, [batch, classes], of any float type.
      logits: z, likewise.
      temperature: T.

    Returns:
      float32 [batch], in nats.
    """
    wanted, found = (
        tf.nn.log_softmax(tf.cast(values, tf.float32) / temperature)
        for values in (teacher_logits, logits)
    )
    divergence = tf.reduce_sum(tf.exp(wanted) * (wanted - found), axis=-1)
    return temperature**2 * divergence


def dampening_loss(model: keras.Model) -> tf.Tensor:
    """Returns the sum of `latent_error` over the quantized weights."""
    errors_of_weights = (
        latent_error(*quantized)
        for wrapper in wrappers(model)
        for quantized in wrapper._weight_vars
    )
    return sum(
        (tf.reduce_sum(tf.square(error)) for error in errors_of_weights),
        tf.constant(0.0),
    )


def latent_error(
    weight: tf.Variable, quantizer: WeightQuantizer, variables: Variables
) -> tf.Tensor:
    """Returns how far each weight is from the middle of its bin.

    `w^ - clip(w, -p s, p s)`, with the quantized weight w^, the step size s
    and the largest level p (Nagel et al. 2022, arXiv 2203.11086, section 4.2).
    A weight that swings between two levels sits at the edge of its bins; the
    square of this pulls it into one of them. Only w has a gradient.

    Args:
      weight: the float weight that trains.
      quantizer: of the weight.
      variables: of the quantizer.

    Returns:
      float32, of the shape of the weight and in its units.
    """
    weight = in_float32(weight)
    latent = quantizer.latent(weight)
    step_size = tf.stop_gradient(quantizer.step_size(weight, variables))
    reach = quantizer.largest_level * step_size
    rounded = tf.stop_gradient(quantizer.quantize(weight, variables))
    return rounded - tf.clip_by_value(latent, -reach, reach)
