"""Curvature of the loss: the trace of its Hessian, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.arguments import keras_model
from qgen_tf.measures.hessian_products import hessian_of
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables
from qgen_tf.measures.weights import weight_name


@dataclasses.dataclass(frozen=True)
class LayerTrace:
    """Trace of the Hessian in the weights of one variable.

    Attributes:
      layer: name of the layer that owns the variable.
      variable: its name in the layer, such as "kernel".
      trace: `Tr(H_ll)`, in nats per squared weight.
      standard_error: Monte-Carlo error of the trace over probes.
      num_weights: n, the size of `H_ll`.
      num_probes: over which the trace is a mean.
      diagonal: of `H_ll`, float32 in the shape of the variable; its sum is the
        trace. A single entry is noisier than the trace by far.
      samples: float64 [num_probes, batches]; the trace is the mean over probes
        of the sum over batches. Those of two layers are not independent; see
        `mean_and_error`.
    """

    layer: str
    variable: str
    trace: float
    standard_error: float
    num_weights: int
    num_probes: int
    diagonal: np.ndarray = dataclasses.field(repr=False, compare=False)
    samples: np.ndarray = dataclasses.field(repr=False, compare=False)


@errors.typed
def layer_traces(
    model: keras.Model,
    dataset: tf.data.Dataset,
    loss_fn: LossFn = cross_entropy,
    *,
    variables: Variables = perturbations.kernels,
    num_probes: int = 32,
    seed: int = 0,
) -> list[LayerTrace]:
    """Estimates the trace of each layer's block of the Hessian.

    H holds the second derivatives of the mean loss over all examples, and
    `H_ll` those in the weights of layer l. One product with a vector of random
    signs samples the diagonal of all blocks; see `Hessian.batch_diagonals`.

    Each batch has signs of its own. The mean of its traces is still that of H,
    at the cost of one product, and the noise of the batches averages out: the
    variance is a multiple of `sum_b |H_b|^2` over off-diagonal entries of the
    Hessians of batches, and with the same signs for all batches of
    `|sum_b H_b|^2`, which has the products of all pairs on top.

    Args:
      model: images to logits. The curvature is that at its weights as they
        are; for the deployed network pass `inference_model(model).model`.
      dataset: batches of (images, int labels), cached; read once for each
        probe.
      loss_fn: (labels, logits) to the loss of each example.
      variables: given the model, its weights of interest.
      num_probes: random vectors for each batch, at least 2.
      seed: of the probes.

    Returns:
      One trace for each variable, in their order.

    Raises:
      ConfigError: `num_probes` is too small.
      DataError: the data set is empty.
      ModelError: the model has none of the weights, its loss is not finite, or
        the loss has no second derivative in some of them.
    """
    if num_probes < 2:
        raise errors.ConfigError(
            f"layer_traces needs num_probes >= 2, not {num_probes}."
        )
    model = keras_model(model)
    hessian = hessian_of(model, dataset, loss_fn, variables)
    traces = traces_of(
        model,
        hessian.variables,
        [
            hessian.batch_diagonals(seed=seed, probe=k)
            for k in range(num_probes)
        ],
    )
    hessian.require_curvature([trace.samples for trace in traces])
    return traces


def traces_of(
    model: keras.Model,
    variables: Sequence[tf.Variable],
    probes: Sequence[Iterable[tuple[int, list[np.ndarray]]]],
) -> list[LayerTrace]:
    """Returns the trace in each variable, from samples of diagonals.

    Args:
      model: whose layers have the variables.
      variables: in which the matrix is taken.
      probes: at least 2; each gives the number of examples of every batch and
        a sample of the diagonal of its matrix, in the shape of each variable.
    """
    diagonals = [np.zeros(variable.shape, np.float32) for variable in variables]
    samples, counts = [], []
    for probe in probes:
        for count, found in probe:
            counts.append(count)
            samples.append(
                [count * part.sum(dtype=np.float64) for part in found]
            )
            for diagonal, part in zip(diagonals, found, strict=True):
                diagonal += count * part
    # [variables, probes, batches], a share of the mean over all examples
    shares = np.transpose(samples) / (sum(counts) / len(probes))
    traces = []
    for variable, share, diagonal in zip(
        variables,
        shares.reshape(len(variables), len(probes), -1),
        diagonals,
        strict=True,
    ):
        layer, name = weight_name(model, variable)
        trace, error = mean_and_error(share)
        traces.append(
            LayerTrace(
                layer=layer,
                variable=name,
                trace=trace,
                standard_error=error,
                num_weights=diagonal.size,
                num_probes=len(probes),
                diagonal=diagonal / np.float32(sum(counts)),
                samples=share,
            )
        )
    return traces


def mean_and_error(samples: np.ndarray) -> tuple[float, float]:
    """Returns a trace and its standard error.

    Args:
      samples: of `LayerTrace`, or their sum over layers. The spread over
        probes is taken within each batch: batches differ in their trace.
    """
    variance = samples.var(axis=0, ddof=1).sum() / len(samples)
    return float(samples.sum(axis=1).mean()), float(variance**0.5)
