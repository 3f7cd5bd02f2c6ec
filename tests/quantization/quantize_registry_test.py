import pytest

from qgen_tf.compat import keras
from qgen_tf.quantization.quantize_registry import Role, is_non_negative, role

layers = keras.layers


class _MyConv(layers.Conv2D):
    pass


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (layers.Conv2D(1, 1), Role.LINEAR),
        (layers.Dense(1, activation="relu"), Role.LINEAR),
        (layers.DepthwiseConv2D(1), Role.LINEAR),
        (_MyConv(1, 1), Role.UNKNOWN),
        (layers.Conv2DTranspose(1, 1), Role.UNKNOWN),
        (layers.BatchNormalization(), Role.NORM),
        (layers.ReLU(), Role.RELU),
        (layers.ReLU(6.0), Role.RELU),
        (layers.ReLU(4.0), Role.UNKNOWN),
        (layers.ReLU(negative_slope=0.1), Role.UNKNOWN),
        (layers.ReLU(threshold=1.0), Role.UNKNOWN),
        (layers.Activation("relu"), Role.RELU),
        (layers.Activation("linear"), Role.COMPUTE),
        (layers.Activation("tanh"), Role.UNKNOWN),
        (layers.Add(), Role.COMPUTE),
        (layers.Flatten(), Role.SHAPE),
        (layers.LayerNormalization(), Role.UNKNOWN),
    ],
)
def test_role(layer, wanted):
    assert role(layer) is wanted


@pytest.mark.parametrize(
    ("layer", "inputs", "wanted"),
    [
        (layers.Conv2D(1, 1), [True], False),
        (layers.Conv2D(1, 1, activation="relu"), [False], True),
        (layers.BatchNormalization(), [True], False),
        (layers.ReLU(6.0), [False], True),
        (layers.Add(), [True, True], True),
        (layers.Add(), [True, False], False),
        (layers.MaxPooling2D(), [True], True),
        (layers.ZeroPadding2D(), [False], False),
        (layers.InputLayer([3]), [], False),
        (layers.Activation("tanh"), [True], False),
    ],
)
def test_sign_of_outputs(layer, inputs, wanted):
    assert is_non_negative(layer, inputs) is wanted
