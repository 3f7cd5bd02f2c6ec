"""The Hessian of a loss, known by its products with vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.evaluate import evaluate, predictor
from qgen_tf.measures.losses import LossFn
from qgen_tf.measures.perturbations import Variables


class Hessian:
    """Second derivatives of the mean loss over all examples of a data set.

    A product `H v` is the derivative of a derivative, exact for the data set:
    no weight is moved. The model computes as in inference: BatchNorm with its
    moving statistics. A quantizer counts as its straight-through gradient has
    it: as the identity inside of its range, and as a constant outside.

    Attributes:
      variables: in which the derivatives are taken.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: tf.data.Dataset,
        loss_fn: LossFn,
        variables: Variables,
    ):
        """Compiles the products.

        Args:
          model: images to logits.
          dataset: batches of (images, int labels), cached; read once here and
            once for each product.
          loss_fn: (labels, logits) to the loss of each example.
          variables: given the model, its weights of interest.

        Raises:
          DataError: the data set is empty.
          ModelError: the model has none of the weights, or its loss is not
            finite.
        """
        self.variables = variables(model)
        if not self.variables:
            raise errors.ModelError(
                f"model {model.name!r} has no weight to differentiate in."
            )
        self._model = model
        self._dataset = dataset
        self._loss_fn = loss_fn
        self._count = len(evaluate(predictor(model), dataset, loss_fn).losses)
        self._sum = tf.function(self._batch_product, reduce_retracing=True)

    @property
    def size(self) -> int:
        """Number of weights, rows and columns of H."""
        return sum(v.shape.num_elements() for v in self.variables)

    def product(self, vector: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns `H v`; costs about three times the gradient.

        Args:
          vector: v, a tensor for each variable, of its shape and type.

        Raises:
          ModelError: the product is not finite.
        """
        total = [tf.zeros_like(variable) for variable in self.variables]
        for images, labels in self._dataset:
            terms = self._sum(images, labels, list(vector))
            total = [t + term for t, term in zip(total, terms, strict=True)]
        found = [part / self._count for part in total]
        if not all(np.isfinite(part).all() for part in found):
            raise errors.ModelError(
                f"the second derivatives of model {self._model.name!r} are not "
                "finite."
            )
        return found

    def _batch_product(self, images, labels, vector):
        """Returns `H v` with H summed over the examples of a batch."""
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(self.variables)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(self.variables)
                logits = self._model(images, training=False)
                loss = tf.reduce_sum(self._loss_fn(labels, logits))
            gradients = inner.gradient(
                loss, self.variables, unconnected_gradients="zero"
            )
            slope = tf.add_n(
                [
                    tf.reduce_sum(part * gradient)
                    for part, gradient in zip(vector, gradients, strict=True)
                ]
            )
        return outer.gradient(
            slope, self.variables, unconnected_gradients="zero"
        )
