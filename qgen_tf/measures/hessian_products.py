"""The Hessian of a loss, known by its products with vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures.losses import LossFn, losses_of
from qgen_tf.measures.objective import Objective, of_numbers
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.weights import differentiated, weight_name


class Hessian(Objective):
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
        """Prepares the products.

        Args:
          model: images to logits.
          dataset: batches of (images, int labels), cached; read once for each
            product.
          loss_fn: (labels, logits) to the loss of each example.
          variables: given the model, its weights of interest.

        Raises:
          ConfigError: the loss takes logits and the model has none.
          ModelError: the model has none of the weights.
        """
        self.variables = differentiated(model, variables)
        super().__init__(model, dataset, loss_fn, self.variables)
        self._model = model
        with self._strategy.scope():
            # variables, so that each replica finds the vector at hand
            self._vector = [
                tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
                for v in self.variables
            ]

        def products(images, labels):
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(self.variables)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(self.variables)
                    logits = model(images, training=False)
                    loss = tf.reduce_sum(losses_of(loss_fn, labels, logits))
                gradients = inner.gradient(
                    loss, self.variables, unconnected_gradients="zero"
                )
                slope = tf.add_n(
                    [
                        tf.reduce_sum(part * gradient)
                        for part, gradient in zip(
                            self._vector, gradients, strict=True
                        )
                    ]
                )
            totals = [loss, 0.0, tf.size(labels)]
            return [
                tf.stack([tf.cast(total, tf.float64) for total in totals]),
                *outer.gradient(
                    slope, self.variables, unconnected_gradients="zero"
                ),
            ]

        self._products = self._compiled(products, self.variables)

    @property
    def size(self) -> int:
        """Number of weights, rows and columns of H."""
        return sum(v.shape.num_elements() for v in self.variables)

    def product(self, vector: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns `H v`; costs about three times the gradient.

        Args:
          vector: v, a tensor for each variable, of its shape and type.

        Raises:
          DataError: the data set is empty.
          ModelError: the loss or the product is not finite.
        """
        self._set(vector)
        return self._mean(self._summed(self._products))

    def batch_products(
        self, vectors: Iterable[Sequence[tf.Tensor]]
    ) -> Iterator[tuple[int, Sequence[tf.Tensor], list[tf.Tensor]]]:
        """Yields the product of each batch's own Hessian with its own vector.

        Args:
          vectors: one for each batch, or more.

        Yields:
          The number of examples of a batch, its vector `v_b`, and `H_b v_b`.
          The mean of these over batches, weighted with the numbers, is `H v`
          if all vectors are v.

        Raises:
          DataError: the data set is empty.
          ModelError: the loss or a product is not finite.
        """
        empty = True
        for (images, labels), vector in zip(
            self._dataset, vectors, strict=False
        ):
            empty = False
            self._set(vector)
            totals, *parts = of_numbers(self._products(images, labels))
            yield int(totals[2]), vector, self._mean([totals, *parts])
        if empty:
            raise errors.DataError("the data set to measure on is empty.")

    def batch_diagonals(
        self, *, seed: int, probe: int
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yields a sample of the diagonal of each batch's own Hessian.

        For a vector v of independent random signs `E[v_i (H v)_i] = H_ii`
        (Hutchinson 1990): what other weights add to `(H v)_i` is as often
        positive as negative. Each batch has signs of its own.

        Args:
          seed: of the signs.
          probe: number of the sample, from 0.

        Yields:
          The number of examples of a batch, and the sample, float32 in the
          shape of each variable. The mean over batches, weighted with the
          numbers, is a sample of the diagonal of H.

        Raises:
          DataError: the data set is empty.
          ModelError: the loss or a product is not finite.
        """
        fold = tf.random.experimental.stateless_fold_in
        batches = (fold([seed, probe], batch) for batch in itertools.count())
        vectors = (
            [
                random_signs(variable.shape, fold(batch, index), variable.dtype)
                for index, variable in enumerate(self.variables)
            ]
            for batch in batches
        )
        for count, signs, products in self.batch_products(vectors):
            yield (
                count,
                [
                    (sign * product).numpy()
                    for sign, product in zip(signs, products, strict=True)
                ],
            )

    def require_curvature(self, products: Iterable[np.ndarray]) -> None:
        """Raises a ModelError unless every variable has a second derivative.

        TensorFlow says nothing where an operation has none: it gives None or
        zero.

        Args:
          products: for each variable, what products of H with random vectors
            have there.
        """
        flat = [
            "/".join(weight_name(self._model, variable))
            for variable, product in zip(self.variables, products, strict=True)
            if not np.any(product)
        ]
        if flat:
            raise errors.ModelError(
                f"the loss of model {self._model.name!r} has no second "
                f"derivative in {', '.join(flat)}: TensorFlow's fake-quant "
                "operations have none (use qgen_tf.quantize_model or the float "
                "model), and neither has a layer that the output does not "
                "depend on."
            )

    def _set(self, vector: Sequence[tf.Tensor]) -> None:
        for variable, part in zip(self._vector, vector, strict=True):
            variable.assign(part)

    def _mean(self, sums: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        totals, *parts = sums
        loss, _, count = totals.numpy().tolist()
        if not np.isfinite(loss):
            raise errors.ModelError(
                f"the loss of model {self._model.name!r} is {loss}: training "
                "has diverged; lower the learning rate."
            )
        found = [part / count for part in parts]
        if not all(np.isfinite(part).all() for part in found):
            raise errors.ModelError(
                f"the second derivatives of model {self._model.name!r} are not "
                "finite."
            )
        return found


# Compiling takes longer than many a product.
hessian_of = sharing.remembered(Hessian)


def random_signs(shape: Any, seed: Any, dtype: tf.DType) -> tf.Tensor:
    """Returns independent signs, 1.0 or -1.0 with equal chances.

    Args:
      shape: of the result.
      seed: two integers.
      dtype: of the result.
    """
    coins = tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32)
    return tf.cast(2 * coins - 1, dtype)


class Operator:
    """A Hessian as a function from flat vectors to flat vectors.

    Attributes:
      size: number of weights, those of all variables in their order.
      num_products: products that it took so far.
    """

    def __init__(self, hessian: Hessian):
        self.size = hessian.size
        self.num_products = 0
        self._hessian = hessian
        sizes = [v.shape.num_elements() for v in hessian.variables]
        self._cuts = np.cumsum(sizes)[:-1]

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """Returns `H v`, float64 [size]."""
        self.num_products += 1
        parts = np.split(vector.reshape(-1), self._cuts)
        tensors = [
            tf.constant(part.reshape(variable.shape), variable.dtype)
            for part, variable in zip(
                parts, self._hessian.variables, strict=True
            )
        ]
        products = self._hessian.product(tensors)
        flat = [product.numpy().reshape(-1) for product in products]
        return np.concatenate(flat).astype(np.float64)

    def require_curvature(self, product: np.ndarray) -> None:
        """Raises a ModelError if a product is zero in a variable.

        Args:
          product: of H with a random vector, [size].
        """
        self._hessian.require_curvature(np.split(product, self._cuts))
