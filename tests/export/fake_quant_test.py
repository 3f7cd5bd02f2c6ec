import numpy as np
import pytest
import tensorflow as tf

from export.fake_quant import FakeQuantActivation, FakeQuantWeights
from qgen_tf.compat import keras
from qgen_tf.quantization import ActivationGrid
from tests import harness

layers = keras.layers


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_activations_are_on_the_grid_that_was_trained(bits, signed):
    zero_point = 2 ** (bits - 1) if signed else 0
    quantizer = ActivationGrid(0.037, bits, zero_point, name="grid")
    values = np.linspace(-11.0, 11.0, 5000, dtype=np.float32)
    ties = np.abs(values / 0.037 % 1.0 - 0.5) < 1e-3
    values = values[~ties]
    if not signed:
        values = np.maximum(values, 0.0)  # as a ReLU leaves them
    found = FakeQuantActivation(quantizer)(values).numpy() / 0.037
    wanted = quantizer(values).numpy() / 0.037
    assert len(np.unique(np.rint(wanted))) == 2**bits
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "inputs", "step_shape"),
    [
        (layers.Conv2D(5, 3), (2, 6, 6, 3), (1, 1, 1, 5)),
        (layers.Conv2D(5, 3), (2, 6, 6, 3), ()),
        (
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            (2, 6, 6, 3),
            (1, 1, 3, 2),
        ),
        (layers.Dense(5, activation="relu"), (2, 4), ()),
        (layers.Dense(5), (2, 4), (1, 5)),
        (layers.Dense(5), (2, 6, 7, 4), (1, 5)),
    ],
)
def test_weights_are_the_constants_of_the_grid(layer, inputs, step_shape):
    images = tf.random.normal(inputs)
    symbolic = keras.Input(inputs[1:])
    model = keras.Model(symbolic, layer(symbolic))
    steps = np.random.default_rng(0).uniform(0.05, 0.1, step_shape)
    grid = harness.weight_grid(
        layer.get_weights()[0], steps.astype(np.float32), 4
    )
    bias = np.arange(layer.bias.shape[0], dtype=np.float32)
    layer.set_weights([layer.get_weights()[0], bias])
    exported = FakeQuantWeights(layer, grid)
    found = keras.Model(symbolic, exported(symbolic))(images)
    layer.set_weights([grid.values, bias])
    np.testing.assert_allclose(found, model(images), atol=1e-5)
