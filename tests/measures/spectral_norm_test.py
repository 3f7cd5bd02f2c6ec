"""The spectral norm of a layer against that of its matrix."""

import numpy as np
import pytest

from qgen_tf.compat import keras
from qgen_tf.measures.spectral_norm import spectral_norm
from tests.measures import closed_forms

layers = keras.layers

_CONVOLUTIONS = {
    "same": layers.Conv2D(4, 3, padding="same"),
    "valid": layers.Conv2D(4, 3),
    "strides": layers.Conv2D(4, 3, strides=2, padding="same"),
    "dilation": layers.Conv2D(4, 2, dilation_rate=2),
    "groups": layers.Conv2D(4, 3, groups=2),
    "depthwise": layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
    "transposed": layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    "activated": layers.Conv2D(4, 3, activation="relu"),
    "one pixel": layers.Conv2D(1, (5, 6)),
    "dense": layers.Dense(3),
    "one output": layers.Dense(1),
}


@pytest.mark.parametrize("kind", _CONVOLUTIONS)
def test_the_spectral_norm_is_that_of_the_matrix(kind):
    layer = _CONVOLUTIONS[kind]
    inputs = keras.Input([5, 6, 2])
    keras.Model(inputs, layer(inputs))
    kernel = layer.get_weights()[0]
    if layer.get_config()["activation"] == "relu":
        linear = layers.Conv2D(4, 3)
    else:
        linear = layer
    truth = np.linalg.norm(closed_forms.matrix(linear, kernel, (5, 6, 2)), 2)
    found = spectral_norm(layer, kernel, tolerance=1e-6)
    assert found == pytest.approx(truth, rel=1e-5)
    if kind == "same":
        # as it is often taken
        reshaped = np.linalg.norm(kernel.reshape(-1, 4), 2)
        assert abs(reshaped / truth - 1) > 0.05
