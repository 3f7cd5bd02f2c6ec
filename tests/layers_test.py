"""The layers of transformers, against NumPy and numbers worked out by hand."""

import inspect

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.layers import (
    AttentionBias,
    CyclicShift,
    MatMul,
    PositionEmbedding,
)

LAYERS = [
    PositionEmbedding(),
    PositionEmbedding(class_token=True),
    MatMul(),
    MatMul(transpose_b=True),
    AttentionBias(2, 3),
    AttentionBias(2, 3, mask=[[0, 0, 1, 1], [2, 2, 2, 2]]),
    CyclicShift(-1),
]
SHAPES = {
    PositionEmbedding: (None, 4, 3),
    AttentionBias: (None, 6, 4, 4),
    CyclicShift: (None, 3, 2, 1),
    MatMul: [(None, 2, 3, 3), (None, 2, 3, 3)],
}


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _built(layer):
    copy = type(layer).from_config(layer.get_config())
    copy.build(SHAPES[type(layer)])
    return copy


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_config_is_every_argument(layer):
    config = layer.get_config()
    arguments = set(inspect.signature(type(layer)).parameters) - {"kwargs"}
    base = set(keras.layers.Layer().get_config())
    assert set(config) == arguments | base
    assert _built(layer).get_config() == config
    twin = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(twin) is type(layer) and twin.get_config() == config


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_outputs_have_the_compute_dtype(layer):
    config = {**layer.get_config(), "dtype": "mixed_bfloat16"}
    layer = type(layer).from_config(config)
    shapes = SHAPES[type(layer)]
    one = isinstance(shapes, tuple)
    inputs = [keras.Input(shape[1:]) for shape in ([shapes] if one else shapes)]
    outputs = layer(inputs[0] if one else inputs)
    assert outputs.dtype == "bfloat16"
    assert outputs.shape[0] is None
    assert {weight.dtype.name for weight in layer.weights} <= {"float32"}


def test_position_embedding_adds_its_rows():
    layer = PositionEmbedding()
    tokens = _random(2, 4, 3)
    outputs = layer(tokens)
    (rows,) = layer.get_weights()
    assert rows.shape == (4, 3) and 0 < abs(rows).max() <= 0.04
    np.testing.assert_array_equal(outputs, tokens + rows)
    np.testing.assert_array_equal(layer.constant(), rows)


def test_class_token_is_in_front():
    layer = PositionEmbedding(class_token=True)
    tokens = _random(2, 4, 3)
    layer.build(tokens.shape)
    rows, token = _random(5, 3), np.float32([1.0, 2.0, 3.0])
    layer.position_embedding.assign(rows)
    layer.class_token.assign(token)
    outputs = layer(tokens).numpy()
    assert outputs.shape == (2, 5, 3)
    np.testing.assert_array_equal(outputs[:, 1:], tokens + rows[1:])
    np.testing.assert_array_equal(outputs[:, 0], [token + rows[0]] * 2)
    np.testing.assert_array_equal(layer.constant()[0], token + rows[0])


def test_matmul():
    a, b = _random(2, 5, 3, 4), _random(2, 5, 4, 6)
    np.testing.assert_allclose(MatMul()([a, b]), a @ b, atol=1e-5)
    transposed = MatMul(transpose_b=True)([a, b.swapaxes(2, 3)])
    np.testing.assert_allclose(transposed, a @ b, atol=1e-5)


def _bias(mask=None):
    layer = AttentionBias(2, 3, mask)
    layer.build((None, 6, 4, 4))
    table = 10.0 * np.arange(9)[:, None] + np.arange(3)
    layer.relative_position_bias.assign(table)
    return layer


def test_position_bias_of_a_window_of_2_by_2():
    # row of the table by hand: 3 (dy + 1) + dx + 1, d from key to query
    rows = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    constant = _bias().constant().numpy()
    assert constant.shape == (6, 4, 4)
    for matrix, bias in enumerate(constant):
        expected = 10.0 * np.array(rows) + matrix % 3  # heads are fast
        np.testing.assert_array_equal(bias, expected)


def test_mask_hides_other_regions():
    layer = _bias([[0, 0, 0, 0], [0, 1, 0, 1]])
    plain = _bias().constant().numpy()
    hidden = layer.constant(mask_value=-7.0).numpy() - plain
    np.testing.assert_array_equal(hidden[:3], 0.0)
    row = [0.0, -7.0, 0.0, -7.0]
    np.testing.assert_array_equal(hidden[3:], [[row, row[::-1]] * 2] * 3)
    scores = _random(2, 6, 4, 4)
    np.testing.assert_array_equal(layer(scores), scores + layer.constant())
    assert layer.constant().numpy().min() < -100.0 + 10 * 8 + 3


@pytest.mark.parametrize(
    ("layer", "shape", "found"),
    [
        (AttentionBias(2, 3), (None, 6, 5, 5), r"6, 5, 5\) and a mask None"),
        (AttentionBias(2, 3), (None, 7, 4, 4), r"7, 4, 4\) and a mask None"),
        (
            AttentionBias(2, 3, [[0] * 4]),
            (None, 6, 4, 4),
            r"6, 4, 4\) and a mask \(1, 4\)",
        ),
    ],
)
def test_bias_of_other_scores(layer, shape, found):
    message = rf"takes scores \[batch, windows \* 3, 4, 4\] .*{found}\.$"
    with pytest.raises(errors.ModelError, match=message):
        layer.build(shape)


@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 3])
def test_shift_is_a_roll(shift):
    images = _random(2, 4, 5, 3)
    expected = np.roll(images, (-shift, -shift), axis=(1, 2))
    np.testing.assert_array_equal(CyclicShift(shift)(images), expected)


@pytest.mark.parametrize("shift", [-4, 4])
def test_shift_is_less_than_a_side(shift):
    message = f"^far cannot shift images of 5 x 4 by {shift}: shift by less"
    with pytest.raises(errors.ModelError, match=message):
        CyclicShift(shift, name="far").build((None, 5, 4, 1))
