"""The mean loss of a model as a function of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from qgen_tf import errors, reading
from qgen_tf.compat import keras
from qgen_tf.measures.arguments import (
    require_examples,
    require_labels,
    untraced_errors,
)
from qgen_tf.measures.losses import (
    LossFn,
    correct_of,
    losses_of,
    require_match,
)


class Objective:
    """Mean loss and accuracy of a model whose weights change between calls.

    Everything is compiled once, whatever the weights become. A model that was
    built under a `tf.distribute` strategy is evaluated by all its replicas.
    Weights that make the model overflow are no error: the loss is then not
    finite, and an example whose outputs are not numbers counts as wrong.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: tf.data.Dataset,
        loss_fn: LossFn,
        variables: Sequence[tf.Variable] = (),
    ):
        """Prepares the evaluation.

        Args:
          model: images to logits; it computes as in inference.
          dataset: batches of (images, int labels); read anew in every call, so
            cache it.
          loss_fn: (labels, logits) to the loss of each example.
          variables: in which `gradient` differentiates.

        Raises:
          ConfigError: the loss takes logits and the model has none.
          DataError: the data set is not of batches of images that fit the
            model and int labels.
        """
        require_match(model, loss_fn)
        require_examples(dataset, model)
        self._model, self._loss_fn = model, loss_fn
        self._strategy = model.distribute_strategy
        self._dataset = self._distributed(dataset)

        def forward(images, labels):
            logits = model(images, training=False)
            losses = losses_of(loss_fn, labels, logits)
            # one tensor: one transfer to the host for a whole data set
            return losses, tf.stack(
                [
                    tf.reduce_sum(tf.cast(losses, tf.float64)),
                    tf.math.count_nonzero(
                        correct_of(loss_fn, labels, logits), dtype=tf.float64
                    ),
                    tf.cast(tf.size(labels), tf.float64),
                ]
            )

        def sums(images, labels):
            return [forward(images, labels)[1]]

        def gradients(images, labels):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                losses, totals = forward(images, labels)
            slopes = tape.gradient(
                losses, variables, unconnected_gradients="zero"
            )
            return [totals, *slopes]

        self._sums = self._compiled(sums, ())
        self._gradients = self._compiled(gradients, variables)

    def __call__(self) -> tuple[float, float]:
        """Returns the mean loss, in nats, and the accuracy, in [0, 1]."""
        (totals,) = self._summed(self._sums)
        loss, hits, count = totals.numpy().tolist()
        return loss / count, hits / count

    def gradient(self) -> tuple[float, float, list[tf.Tensor]]:
        """Returns mean loss, accuracy, and the gradient of the mean loss.

        The gradient has a tensor for each variable.
        """
        totals, *slopes = self._summed(self._gradients)
        loss, hits, count = totals.numpy().tolist()
        return loss / count, hits / count, [slope / count for slope in slopes]

    @property
    def num_examples(self) -> int:
        """Number of examples; reads the data."""
        return sum(
            len(on_replica)
            for _, labels in self._dataset
            for on_replica in self._strategy.experimental_local_results(labels)
        )

    def on(self, dataset: tf.data.Dataset) -> Objective:
        """Returns the objective on other data; nothing is compiled again."""
        other = copy.copy(self)
        other._dataset = other._distributed(dataset)
        return other

    def parts(
        self, dataset: tf.data.Dataset, num_parts: int, batch_size: int
    ) -> list[Objective]:
        """Returns the objective on parts of the data, for many evaluations.

        All batches are read here and held: to start to read a data set takes
        longer than a pass over a hundred examples.

        Args:
          dataset: see the constructor.
          num_parts: number of parts; every so many-th batch goes into each.
          batch_size: examples in a pass at a time; batches that are smaller
            are put together, unless they are spread over replicas.
        """
        whole = self.on(dataset)
        batches = list(whole._dataset)
        dealt = [batches[index::num_parts] for index in range(num_parts)]
        batches.clear()  # each is let go once it is put together
        parts = []
        while dealt:
            part = copy.copy(whole)
            part._dataset = dealt.pop(0)
            if self._strategy.num_replicas_in_sync == 1:
                part._dataset = _joined(part._dataset, batch_size)
            parts.append(part)
        return parts

    def _distributed(self, dataset: tf.data.Dataset) -> Any:
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return self._strategy.experimental_distribute_dataset(
            reading.untuned(dataset).with_options(options)
        )

    def _compiled(
        self,
        function: Callable[..., list[tf.Tensor]],
        variables: Sequence[tf.Variable],
    ) -> Any:
        """Compiles a sum over the examples of a batch.

        Args:
          function: (images, labels) to three totals and a sum in the shape of
            each variable.
          variables: see there.

        Returns:
          The function, whose results have the number of NaN in the images at
          their end: see `of_numbers`.
        """
        strategy = self._strategy

        def of_no_example():
            totals = tf.zeros(3, tf.float64)
            slopes = (tf.zeros_like(v) for v in variables)
            return [totals, *slopes, tf.constant(0, tf.int64)]

        def of_examples(images, labels):
            # max pooling and ReLU may swallow NaN
            return [*function(images, labels), _num_nan(images)]

        def on_replica(images, labels):
            if strategy.num_replicas_in_sync == 1:
                return of_examples(images, labels)
            # a replica may get none of the last batch: kernels refuse that
            return tf.cond(
                tf.size(labels) > 0,
                lambda: of_examples(images, labels),
                of_no_example,
            )

        @tf.function(reduce_retracing=True)
        def over_replicas(images, labels):
            parts = strategy.run(on_replica, (images, labels))
            return [
                strategy.reduce(tf.distribute.ReduceOp.SUM, part, None)
                for part in parts
            ]

        def explained(images, labels):
            try:
                with untraced_errors():
                    return over_replicas(images, labels)
            except tf.errors.InvalidArgumentError:
                self._require_labels(labels)
                raise

        return explained

    def _require_labels(self, labels: Any) -> None:
        """Raises a DataError if a label of a batch is not one of a class."""
        for outputs in (self._model.outputs or [])[:1]:
            for part in self._strategy.experimental_local_results(labels):
                require_labels(self._loss_fn, part.numpy(), outputs.shape[-1])

    def _summed(self, function: Callable[..., list[tf.Tensor]]) -> list[Any]:
        total: list[tf.Tensor] | None = None
        for images, labels in self._dataset:
            terms = function(images, labels)
            if total is not None:
                terms = [a + b for a, b in zip(total, terms, strict=True)]
            total = terms
        if total is None:
            raise errors.DataError(
                "the data set to measure on is empty: pass one with examples."
            )
        return of_numbers(total)


def of_numbers(terms: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns what `_compiled` gives, without the number of NaN at its end.

    Raises:
      DataError: it is not 0.
    """
    *sums, num_nan = terms
    if num_nan.numpy():
        raise errors.DataError(
            "a batch of images holds NaN: mend the data set or its "
            "preprocessing."
        )
    return sums


def _num_nan(images: Any) -> tf.Tensor:
    """Returns how many numbers of the images are NaN, int64."""
    counts = [
        tf.math.count_nonzero(tf.math.is_nan(part))
        for part in tf.nest.flatten(images)
        if part.dtype.is_floating
    ]
    return tf.add_n(counts) if counts else tf.constant(0, tf.int64)


def _joined(batches: Sequence[Any], batch_size: int) -> list[Any]:
    """Returns batches of (images, labels) of so many examples, in order."""
    images, labels = (
        tf.concat(parts, axis=0) for parts in zip(*batches, strict=True)
    )
    return [
        (images[start : start + batch_size], labels[start : start + batch_size])
        for start in range(0, len(labels), batch_size)
    ]
