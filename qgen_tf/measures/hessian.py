"""Curvature of the loss: the trace of its Hessian, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import perturbations
from qgen_tf.measures.hessian_products import Hessian
from qgen_tf.measures.losses import LossFn, cross_entropy
from qgen_tf.measures.perturbations import Variables


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
    """

    layer: str
    variable: str
    trace: float
    standard_error: float
    num_weights: int
    num_probes: int
    diagonal: np.ndarray = dataclasses.field(repr=False, compare=False)


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
    `H_ll` those in the weights of layer l. For a vector v of independent
    random signs `E[v_i (H v)_i] = H_ii`, and summed over the layer it is the
    trace (Hutchinson 1990): what other weights add to `(H v)_i` is as often
    positive as negative. So one product `H v` serves all layers; see `Hessian`.

    Args:
      model: images to logits. The curvature is that at its weights as they
        are; for the deployed network pass `inference_model(model).model`.
      dataset: batches of (images, int labels), cached; read once for each
        probe.
      loss_fn: (labels, logits) to the loss of each example.
      variables: given the model, its weights of interest.
      num_probes: random vectors, at least 2.
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
    hessian = Hessian(model, dataset, loss_fn, variables)
    chosen = hessian.variables
    samples = np.zeros((num_probes, len(chosen)))
    diagonals = [tf.zeros_like(variable) for variable in chosen]
    for probe in range(num_probes):
        signs = _signs(chosen, seed, probe)
        for index, (sign, part) in enumerate(
            zip(signs, hessian.product(signs), strict=True)
        ):
            diagonal = (sign * part).numpy()
            samples[probe, index] = diagonal.sum(dtype=np.float64)
            diagonals[index] += diagonal / num_probes
    names = [_names(model, variable) for variable in chosen]
    _require_curvature(model, names, samples)
    means = samples.mean(axis=0)
    deviations = samples.std(axis=0, ddof=1) / num_probes**0.5
    return [
        LayerTrace(
            layer=layer,
            variable=name,
            trace=float(mean),
            standard_error=float(deviation),
            num_weights=variable.shape.num_elements(),
            num_probes=num_probes,
            diagonal=diagonal.numpy(),
        )
        for (layer, name), variable, mean, deviation, diagonal in zip(
            names, chosen, means, deviations, diagonals, strict=True
        )
    ]


def _names(model: keras.Model, variable: tf.Variable) -> tuple[str, str]:
    """Returns the names of the innermost layer of a variable, and its own."""
    (*_, owner) = (
        layer
        for layer in model._flatten_layers(include_self=False)
        if any(weight is variable for weight in layer.weights)
    )
    return owner.name, variable.name.split(":")[0].split("/")[-1]


def _signs(
    variables: Sequence[tf.Variable], seed: int, probe: int
) -> list[tf.Tensor]:
    """Returns independent random signs in the shapes of the variables."""
    signs = []
    for index, variable in enumerate(variables):
        coins = tf.random.stateless_uniform(
            variable.shape,
            (seed, probe * len(variables) + index),
            minval=0,
            maxval=2,
            dtype=tf.int32,
        )
        signs.append(tf.cast(2 * coins - 1, variable.dtype))
    return signs


def _require_curvature(
    model: keras.Model, names: Sequence[tuple[str, str]], samples: np.ndarray
) -> None:
    """Raises a ModelError unless every layer has a second derivative.

    TensorFlow says nothing where an operation has none: it gives None or zero.
    """
    flat = [
        f"{layer}/{variable}"
        for (layer, variable), column in zip(names, samples.T, strict=True)
        if not column.any()
    ]
    if flat:
        raise errors.ModelError(
            f"the loss of model {model.name!r} has no second derivative in "
            f"{', '.join(flat)}: TensorFlow's fake-quant operations have none "
            "(use qgen_tf.quantize_model or the float model), and neither has "
            "a layer that the output does not depend on."
        )
