"""The spectral norm of a layer, as the linear map that it is."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse.linalg
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization.quantize import unwrapped
from qgen_tf.quantization.quantize_registry import WEIGHTS

_LinearOperator: TypeAlias = scipy.sparse.linalg.LinearOperator


def spectral_norm(
    layer: keras.layers.Layer,
    kernel: np.ndarray,
    *,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> float:
    """Returns `max |W x| / |x|`, where W is the layer without its bias.

    Exact for every kind of convolution (strides, padding with zeros, dilation,
    groups, depthwise, transposed), at the size of images that the layer has.
    The largest singular value is found from products with W and W', by the
    Lanczos iterations of ARPACK. The norm of the reshaped kernel, often taken
    for it (Yoshida and Miyato 2017), may be off by the width of the kernel;
    that of a circular convolution (Sedghi et al. 2019) differs at the borders.

    Args:
      layer: of a Functional model: a convolution or `Dense`, or its wrapper.
      kernel: its weight, not all zero.
      tolerance: relative accuracy of the squared norm; products are float32.
      seed: of the first vector.

    Raises:
      ModelError: the layer is of no known kind, or its images have no fixed
        size.
    """
    inner = unwrapped(layer)
    if type(inner) not in WEIGHTS:
        known = ", ".join(sorted(kind.__name__ for kind in WEIGHTS))
        raise errors.ModelError(
            f"layer {layer.name!r} ({type(inner).__name__}) is not known as a "
            f"linear map, as {known} are: choose variables without it, or "
            "point='deployed', which takes composite layers apart."
        )
    if type(inner) is keras.layers.Dense:
        operator = scipy.sparse.linalg.aslinearoperator(kernel)
    else:
        operator = _convolution(inner, layer.input_shape[1:], kernel)
    size = min(operator.shape)
    if size == 1:  # ARPACK finds fewer singular values than there are
        one_side = operator if operator.shape[1] == 1 else operator.H
        return float(np.linalg.norm(one_side @ np.ones(1)))
    (largest,) = scipy.sparse.linalg.svds(
        operator,
        k=1,
        tol=tolerance,
        v0=np.random.default_rng(seed).normal(size=size),
        return_singular_vectors=False,
    )
    return float(largest)


def _convolution(
    layer: Any, shape: tuple, kernel: np.ndarray
) -> _LinearOperator:
    """Returns a convolution as a map from flat images to flat images.

    Args:
      layer: without wrapper.
      shape: of its input, without the batch.
      kernel: its weight.
    """
    if None in shape:
        raise errors.ModelError(
            f"layer {layer.name!r} takes images of any size, {shape}, and its "
            "norm depends on it: build the model with a fixed size."
        )
    config = {"use_bias": False, "activation": "linear", "dtype": "float32"}
    linear = type(layer).from_config({**layer.get_config(), **config})
    linear.build((None, *shape))
    linear.set_weights([kernel])
    outputs = linear.compute_output_shape((1, *shape))

    @tf.function
    def transposed(image):
        zeros = tf.zeros((1, *shape))
        with tf.GradientTape() as tape:
            tape.watch(zeros)
            product = linear(zeros)
        return tape.gradient(product, zeros, output_gradients=image)

    def flat(function, shape):
        def product(vector):
            image = tf.constant(vector.reshape(shape), tf.float32)
            return function(image).numpy().reshape(-1).astype(np.float64)

        return product

    return _LinearOperator(
        (np.prod(outputs), np.prod(shape)),
        matvec=flat(tf.function(linear), (1, *shape)),
        rmatvec=flat(transposed, outputs),
        dtype=np.float64,
    )
