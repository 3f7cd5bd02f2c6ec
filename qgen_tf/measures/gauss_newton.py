"""The Gauss-Newton matrix of a loss: curvature without its residual term."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from qgen_tf import errors, sharing
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import keras_model
from qgen_tf.measures.hessian import LayerTrace, traces_of
from qgen_tf.measures.hessian_products import random_signs
from qgen_tf.measures.losses import (
    CrossEntropy,
    LossFn,
    cross_entropy,
    losses_of,
)
from qgen_tf.measures.objective import Objective, of_numbers
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.weights import differentiated


class GaussNewton(Objective):
    """The matrix `G = E_x[J' A J]` of the mean loss over a data set.

    J holds the derivatives of the outputs of example x in the weights, and A
    the second derivatives of its loss in these outputs (Martens 2020, arXiv
    1412.1193, section 8). So the diagonal of G is the squared gradient of the
    outputs, weighted by the curvature of the loss. The Hessian is G plus a
    residual term: the curvature of the outputs, weighted by the gradient of
    the loss.

    The diagonal is estimated without bias by one backward pass. With `A = R R'`
    and random signs z for each example and output, the gradient g of `sum over
    examples of <R z, outputs>` has `E[g_j^2] = sum of (J' A J)_jj`: signs of
    two examples are independent, and what they have in common averages out.
    Each batch is squared alone, which costs nothing and spreads less.

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
        """Prepares the backward pass.

        Args:
          model: images to logits; it computes as in inference.
          dataset: batches of (images, int labels), cached; read once for each
            probe.
          loss_fn: (labels, logits) to the loss of each example. Where it is
            not convex in the outputs, negative curvature counts as none.
          variables: given the model, its weights of interest.

        Raises:
          ConfigError: the loss takes logits and the model has none.
          ModelError: the model has none of the weights.
        """
        self.variables = differentiated(model, variables)
        super().__init__(model, dataset, loss_fn, self.variables)
        self._model = model
        with self._strategy.scope():
            self._seed = tf.Variable([0, 0], trainable=False)

        def squares(images, labels):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self.variables)
                outputs = model(images, training=False)
            signs = random_signs(tf.shape(outputs), self._seed, outputs.dtype)
            weights = _root_product(loss_fn, labels, outputs, signs)
            gradients = tape.gradient(
                outputs,
                self.variables,
                output_gradients=weights,
                unconnected_gradients="zero",
            )
            totals = [0.0, 0.0, tf.size(labels)]
            return [
                tf.stack([tf.cast(total, tf.float64) for total in totals]),
                *(gradient**2 for gradient in gradients),
            ]

        self._squares = self._compiled(squares, self.variables)

    def batch_diagonals(
        self, *, seed: int, probe: int
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yields a sample of the diagonal of each batch's own matrix.

        Args:
          seed: of the signs.
          probe: number of the sample, from 0.

        Yields:
          The number of examples of a batch, and the sample, float32 in the
          shape of each variable, never below zero. The mean over batches,
          weighted with the numbers, is a sample of the diagonal of G.

        Raises:
          DataError: the data set is empty.
          ModelError: a sample is not finite.
        """
        index = -1
        for index, (images, labels) in enumerate(self._dataset):
            self._seed.assign(
                tf.random.experimental.stateless_fold_in([seed, probe], index)
            )
            totals, *parts = of_numbers(self._squares(images, labels))
            count = int(totals[2])
            found = [part.numpy() / np.float32(count) for part in parts]
            if not all(np.isfinite(part).all() for part in found):
                raise errors.ModelError(
                    f"the derivatives of model {self._model.name!r} are not "
                    "finite: training has diverged; lower the learning rate."
                )
            yield count, found
        if index < 0:
            raise errors.DataError("the data set to measure on is empty.")


# Compiling takes longer than many a probe.
gauss_newton_of = sharing.remembered(GaussNewton)


@errors.typed
def layer_gauss_newton_traces(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    variables: Variables = perturbations.kernels,
    num_probes: int = 8,
    seed: int = 0,
) -> list[LayerTrace]:
    """Estimates the trace of each layer's block of the Gauss-Newton matrix.

    Where the outputs are piecewise linear in the weights of a layer (all other
    weights as they are), as with ReLU and max-pooling, the residual term has
    no diagonal block, and the trace is that of the Hessian, estimated at less
    cost, with a smaller error, and never below zero. With gelu or softmax
    between the layers the two differ.

    Args:
      model: images to logits. The curvature is that at its weights as they
        are; for the deployed network pass `inference_model(model).model`.
      dataset: batches of (images, int labels), cached; read once for each
        probe.
      loss_fn: (labels, logits) to the loss of each example; see `GaussNewton`.
      variables: given the model, its weights of interest.
      num_probes: samples, at least 2.
      seed: of the samples.

    Returns:
      One trace for each variable, in their order.

    Raises:
      ConfigError: `num_probes` is too small.
      DataError: the data set is empty.
      ModelError: the model has none of the weights, or its loss or derivatives
        are not finite.
    """
    if num_probes < 2:
        raise errors.ConfigError(
            f"layer_gauss_newton_traces needs num_probes >= 2, not "
            f"{num_probes}."
        )
    model = keras_model(model)
    matrix = gauss_newton_of(model, dataset, loss_fn, variables)
    return traces_of(
        model,
        matrix.variables,
        [matrix.batch_diagonals(seed=seed, probe=k) for k in range(num_probes)],
    )


def _root_product(
    loss_fn: LossFn, labels: tf.Tensor, outputs: tf.Tensor, signs: tf.Tensor
) -> tf.Tensor:
    """Returns `R z` with `R R'` the loss's curvature in the outputs.

    Args:
      loss_fn: see `GaussNewton`.
      labels: int [batch].
      outputs: [batch, classes].
      signs: z, [batch, classes].
    """
    if (
        isinstance(loss_fn, CrossEntropy)
        and loss_fn.from_logits
        and outputs.shape[-1] > 1
    ):
        # diag(p) - p p' = R R' with R = diag(r) - p r' and r = sqrt(p): no
        # matrix of 1000 x 1000 for each example of ImageNet
        shares = tf.nn.softmax(outputs)
        parts = tf.sqrt(shares) * signs
        return parts - shares * tf.reduce_sum(parts, axis=-1, keepdims=True)
    with tf.GradientTape() as outer:
        outer.watch(outputs)
        with tf.GradientTape() as inner:
            inner.watch(outputs)
            losses = losses_of(loss_fn, labels, outputs)
        slopes = inner.gradient(losses, outputs)
    curvature = outer.batch_jacobian(
        slopes, outputs, unconnected_gradients="zero"
    )
    values, vectors = tf.linalg.eigh(curvature)
    roots = vectors * tf.sqrt(tf.maximum(values, 0.0))[:, tf.newaxis, :]
    return tf.linalg.matvec(roots, signs)
