"""Margins: by how much the right class leads."""

from __future__ import annotations

import numpy as np
import scipy.stats
import tensorflow as tf

from qgen_tf import errors, reading
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import (
    keras_model,
    require_examples,
    require_labels,
)
from qgen_tf.measures.evaluate import predictor
from qgen_tf.measures.losses import (
    CrossEntropy,
    LossFn,
    cross_entropy,
    require_match,
)
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.result import MeasureResult

_SMALLEST_PROBABILITY = 1e-7


def margins(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
) -> np.ndarray:
    """Returns the margin of each example, float64 [examples].

    The logit of its class less the largest of the others; below zero if the
    example is wrong. One output z is the second of two classes, whose margin
    is z, and that of the first -z. Probabilities count by their logarithm,
    which gives the same margin.

    Args:
      model: images to logits, as it is.
      dataset: batches of (images, int labels).
      loss_fn: says whether outputs are probabilities; see `CrossEntropy`.

    Raises:
      ConfigError: the loss takes logits and the model has none.
      DataError: the data set is empty, or not of batches of images that fit
        the model and int labels of its classes.
      ModelError: an output is not finite.
    """
    network = keras_model(model)
    require_match(network, loss_fn)
    require_examples(dataset, network)
    predict = predictor(network)
    found = []
    for images, labels in reading.untuned(dataset):
        outputs = predict(images.numpy()).astype(np.float64)
        if not np.isfinite(outputs).all():
            raise errors.ModelError(
                f"the outputs of model {model.name!r} are not finite: training "
                "has diverged; lower the learning rate."
            )
        classes = labels.numpy()
        # whatever the loss, a margin is that of one of the classes
        require_labels(cross_entropy, classes, outputs.shape[-1])
        found.append(_of_batch(_two_or_more(outputs, loss_fn), classes))
    if not found:
        raise errors.DataError("the data set to measure on is empty.")
    return np.concatenate(found)


@errors.typed
def margin_percentile(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    point: str = "deployed",
    variables: Variables = perturbations.kernels,
    seed: int = 0,
    percentile: float = 10.0,
) -> MeasureResult:
    """A low percentile of the margins, in logits.

    The margin gamma of Jiang et al. 2020 (arXiv 1912.02178, equation 22, which
    reports `1 / gamma^2`): the 10th percentile over the training set stands
    for the smallest margin, which a single example would decide. Unlike
    `1 / gamma^2` it has a meaning below zero, where more than a tenth of the
    examples is wrong. The standard error is that of a percentile of a sample
    (Maritz and Jarrett 1978): the examples are drawn, nothing else.

    Args:
      model: images to logits; as trained, float or quantized.
      dataset: batches of (images, int labels); the training set without
        augmentation.
      loss_fn: says whether outputs are probabilities; see `CrossEntropy`.
      point: "deployed" or "latent"; see `perturbations.measured_model`.
      variables: only there for the common interface, as is `seed`.
      seed: see there.
      percentile: of the examples that have a smaller margin, in (0, 100).

    Returns:
      The result; `details` has the median margin and the share of examples
      whose margin is above zero.

    Raises:
      ConfigError: a setting is out of range, or the loss takes logits and the
        model has none.
      DataError: the data set is empty.
      ModelError: an output is not finite.
    """
    if not 0 < percentile < 100:
        raise errors.ConfigError(
            "margin_percentile needs a percentile in (0, 100), not "
            f"{percentile}."
        )
    network = perturbations.measured_model(model, point)
    found = margins(network, dataset, loss_fn)
    error = scipy.stats.mstats.mjci(found, prob=[percentile / 100])
    return MeasureResult(
        name="margin_percentile",
        value=float(np.percentile(found, percentile)),
        unit="logits",
        standard_error=float(error[0]),
        converged=True,
        settings={"point": point, "seed": seed, "percentile": percentile},
        details={
            "median": float(np.median(found)),
            "share_positive": float((found > 0).mean()),
        },
    )


def _two_or_more(outputs: np.ndarray, loss_fn: LossFn) -> np.ndarray:
    """Returns logits of two classes or more, up to a common constant.

    Args:
      outputs: of a model, [batch, classes or 1].
      loss_fn: says what they are.
    """
    logits = not isinstance(loss_fn, CrossEntropy) or loss_fn.from_logits
    if outputs.shape[-1] == 1:
        first = np.zeros_like(outputs) if logits else 1.0 - outputs
        outputs = np.concatenate([first, outputs], axis=-1)
    if logits:
        return outputs
    return np.log(np.maximum(outputs, _SMALLEST_PROBABILITY))


def _of_batch(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns margins [batch] of logits [batch, classes]."""
    labels = labels[:, None]
    own = np.take_along_axis(logits, labels, axis=-1)[:, 0]
    others = logits.copy()
    np.put_along_axis(others, labels, -np.inf, axis=-1)
    return own - others.max(axis=-1)
