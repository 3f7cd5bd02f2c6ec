"""Losses of single examples, and which examples count as right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization.grids import ActivationGrid
from qgen_tf.quantization.quantize import unwrapped
from qgen_tf.quantization.quantize_registry import activation_name

LossFn: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_SMALLEST_PROBABILITY = 1e-7


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The cross-entropy of each example, in nats.

    Called with int labels [batch] and float outputs [batch, classes], it
    returns float [batch]. One output is the second of two classes.

    Attributes:
      from_logits: whether outputs are logits, else probabilities. Those below
        1e-7 count as 1e-7.
    """

    from_logits: bool = True

    def __call__(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each example."""
        if outputs.shape[-1] == 1:
            labels = tf.cast(labels, outputs.dtype)
            if self.from_logits:
                return tf.nn.sigmoid_cross_entropy_with_logits(
                    labels, outputs[:, 0]
                )
            wrong = tf.abs(1.0 - labels - outputs[:, 0])
            return -tf.math.log(tf.maximum(wrong, _SMALLEST_PROBABILITY))
        if not self.from_logits:
            outputs = tf.math.log(tf.maximum(outputs, _SMALLEST_PROBABILITY))
            chosen = tf.gather(outputs, labels, axis=-1, batch_dims=1)
            return -chosen
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)

    def correct(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns which examples are right, bool [batch]; NaN is wrong."""
        if outputs.shape[-1] > 1:
            return _largest_is(labels, outputs)
        threshold = 0.0 if self.from_logits else 0.5
        second = outputs[:, 0] > threshold
        right = second == tf.cast(labels, tf.bool)
        return right & ~tf.math.is_nan(outputs[:, 0])


cross_entropy = CrossEntropy()


def losses_of(
    loss_fn: LossFn, labels: tf.Tensor, outputs: tf.Tensor
) -> tf.Tensor:
    """Returns the loss of each example.

    Raises:
      ConfigError: `loss_fn` does not return one loss for each example.
    """
    if not callable(loss_fn) or isinstance(loss_fn, type):
        raise errors.ConfigError(
            f"loss_fn is {loss_fn!r}: pass a function of (labels, outputs), "
            "such as measures.cross_entropy."
        )
    losses = loss_fn(labels, outputs)
    if losses.shape.rank != 1:
        raise errors.ConfigError(
            "loss_fn must return the loss of each example, of shape [batch], "
            f"not {losses.shape}: leave out its mean over the batch."
        )
    return losses


def correct_of(
    loss_fn: LossFn, labels: tf.Tensor, outputs: tf.Tensor
) -> tf.Tensor:
    """Returns which examples are right, bool [batch]; NaN is wrong.

    A loss function may know (`CrossEntropy.correct`); else the largest output
    decides.
    """
    return getattr(loss_fn, "correct", _largest_is)(labels, outputs)


def require_match(model: keras.Model, loss_fn: LossFn) -> None:
    """Raises a ConfigError if outputs are probabilities and the loss errs."""
    if not (isinstance(loss_fn, CrossEntropy) and loss_fn.from_logits):
        return
    if ends_in_probabilities(model):
        raise errors.ConfigError(
            f"model {model.name!r} ends in probabilities, and the loss takes "
            "logits: pass loss_fn=measures.CrossEntropy(from_logits=False)."
        )


def ends_in_probabilities(model: keras.Model) -> bool:
    """Whether the last layer of a Functional model is a softmax or sigmoid."""
    tensor: Any = model.outputs[0] if getattr(model, "outputs", None) else None
    node = getattr(tensor, "node", None)
    if node is None:
        return False
    layer = node.layer
    while isinstance(layer, ActivationGrid):
        layer = layer.input.node.layer
    layer = unwrapped(layer)
    if isinstance(layer, keras.layers.Softmax):
        return True
    return hasattr(layer, "activation") and activation_name(layer) in (
        "sigmoid",
        "softmax",
    )


def _largest_is(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    hits = tf.argmax(outputs, axis=-1) == tf.cast(labels, tf.int64)
    return hits & ~tf.reduce_any(tf.math.is_nan(outputs), axis=-1)
