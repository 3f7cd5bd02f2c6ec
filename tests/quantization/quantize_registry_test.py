import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.layers import CyclicShift, MatMul, PositionEmbedding
from qgen_tf.quantization.quantize_registry import (
    Role,
    activation_name,
    fixed_grid,
    is_fused,
    role,
    signed,
)

layers = keras.layers


class _MyConv(layers.Conv2D):
    pass


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (layers.Conv2D(1, 1), Role.LINEAR),
        (layers.Dense(1, activation="relu"), Role.LINEAR),
        (layers.DepthwiseConv2D(1), Role.LINEAR),
        (layers.Conv2DTranspose(1, 1), Role.LINEAR),
        (_MyConv(1, 1), Role.UNKNOWN),
        (layers.Conv2D(1, 1, data_format="channels_first"), Role.UNKNOWN),
        (layers.BatchNormalization(), Role.AFFINE),
        (layers.BatchNormalization(axis=1), Role.UNKNOWN),
        (layers.Rescaling(2.0), Role.AFFINE),
        (layers.Normalization(), Role.AFFINE),
        (layers.Normalization(axis=(1, 2)), Role.UNKNOWN),
        (layers.Normalization(invert=True), Role.UNKNOWN),
        (layers.ReLU(), Role.RELU),
        (layers.ReLU(6.0), Role.RELU),
        (layers.ReLU(4.0), Role.UNKNOWN),
        (layers.ReLU(negative_slope=0.1), Role.UNKNOWN),
        (layers.ReLU(threshold=1.0), Role.UNKNOWN),
        (layers.Activation("relu"), Role.RELU),
        (layers.Activation(tf.nn.relu), Role.RELU),
        (layers.Activation("linear"), Role.SHAPE),
        (layers.Activation("gelu"), Role.COMPUTE),
        (layers.Activation("tanh"), Role.FIXED),
        (layers.Activation(tf.nn.sigmoid), Role.FIXED),
        (layers.Activation("softplus"), Role.UNKNOWN),
        (layers.Softmax(), Role.FIXED),
        (layers.Softmax(axis=1), Role.UNKNOWN),
        (layers.Add(), Role.COMPUTE),
        (layers.Multiply(), Role.COMPUTE),
        (layers.Concatenate(), Role.COMPUTE),
        (layers.Flatten(), Role.SHAPE),
        (layers.UpSampling2D(), Role.SHAPE),
        (layers.UpSampling2D(interpolation="bilinear"), Role.COMPUTE),
        (layers.UpSampling2D(interpolation="bicubic"), Role.UNKNOWN),
        (layers.LayerNormalization(), Role.NORM),
        (layers.LayerNormalization([1, 2]), Role.UNKNOWN),
        (PositionEmbedding(), Role.CONSTANT),
        (CyclicShift(1), Role.SHAPE),
        (MatMul(), Role.COMPUTE),
        (layers.LSTM(3), Role.UNKNOWN),
    ],
)
def test_role(layer, wanted):
    if isinstance(layer, layers.BatchNormalization):
        layer.build((None, 4, 4, 3))
    assert role(layer) is wanted


@pytest.mark.parametrize(
    ("layer", "inputs", "wanted"),
    [
        (layers.Conv2D(1, 1), [False], True),
        (layers.Conv2D(1, 1, activation="relu"), [True], False),
        (layers.BatchNormalization(), [False], True),
        (layers.ReLU(6.0), [True], False),
        (layers.Add(), [False, False], False),
        (layers.Add(), [False, True], True),
        (layers.Add(), [False, None], None),
        (layers.MaxPooling2D(), [False], False),
        (layers.ZeroPadding2D(), [True], True),
        (layers.InputLayer([3]), [], None),
        (layers.Activation("tanh"), [False], True),
        (layers.Activation("sigmoid"), [True], False),
        (layers.Activation("gelu"), [False], None),
        (layers.Rescaling(2.0), [True], None),
    ],
)
def test_sign_of_outputs(layer, inputs, wanted):
    assert signed(layer, inputs) is wanted


@pytest.mark.parametrize(
    ("layer", "reader", "wanted"),
    [
        (layers.Conv2D(1, 1), layers.BatchNormalization(), True),
        (layers.Conv2D(1, 1), layers.ReLU(), True),
        (
            layers.Conv2D(1, 1, activation="relu"),
            layers.BatchNormalization(),
            False,
        ),
        (layers.Conv2D(1, 1), layers.Rescaling(2.0), False),
        (layers.BatchNormalization(), layers.ReLU(6.0), True),
        (layers.Add(), layers.ReLU(), True),
        (layers.Add(), layers.BatchNormalization(), False),
        (layers.MaxPooling2D(), layers.ReLU(), False),
        (layers.Conv2D(1, 1), layers.Conv2D(1, 1), False),
    ],
)
def test_what_is_computed_as_one(layer, reader, wanted):
    assert is_fused(layer, reader) is wanted


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("relu", "relu"),
        (tf.nn.relu6, "relu6"),
        ("swish", "swish"),
        (tf.nn.silu, "swish"),
        (keras.activations.gelu, "gelu"),
        (None, "linear"),
        ("elu", None),
        (lambda x: x, None),
    ],
)
def test_names_of_activations(function, wanted):
    assert activation_name(layers.Conv2D(1, 1, activation=function)) == wanted


def test_fixed_grids_span_the_range_of_the_function():
    values = tf.constant([[-100.0, 0.0, 100.0]])
    for layer in (
        layers.Activation("sigmoid"),
        layers.Activation("tanh"),
        layers.Softmax(),
    ):
        grid = fixed_grid(layer)
        low = -grid.zero_point * grid.step_size
        high = (255 - grid.zero_point) * grid.step_size
        found = layer(values).numpy()
        assert low <= found.min() and found.max() <= high + grid.step_size
        assert found.max() - found.min() > 0.9 * (high - low)
