import numpy as np
import pytest

from qgen_tf.compat import keras
from qgen_tf.layers import MASK_VALUE, AttentionBias
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.key_mask import KeyMask

_REGIONS = [[0, 0, 1, 1], [0, 1, 2, 3]]


def test_cuts_what_is_not_seen():
    mask = KeyMask(_REGIONS, 2, low=-3.0, high=5.0)
    scores = np.full((1, 4, 4, 4), 7.0, np.float32)
    found = mask(scores).numpy()[0]
    sees = np.kron(np.eye(2), np.ones((2, 2)))
    wanted = np.where(sees, 5.0, -3.0)
    np.testing.assert_array_equal(found[:2], np.stack([wanted] * 2))
    wanted = np.where(np.eye(4), 5.0, -3.0)
    np.testing.assert_array_equal(found[2:], np.stack([wanted] * 2))


@pytest.mark.parametrize("mean", [0.0, -20.0])
def test_attention_is_that_of_the_bias_with_a_mask(mean):
    """To less than a level of softmax, which is 1/256."""
    bias = AttentionBias(2, 2, _REGIONS)
    scores = np.random.default_rng(0).normal(mean, size=(3, 4, 4, 4))
    scores = scores.astype(np.float32)
    masked = bias(scores).numpy()
    assert (masked < MASK_VALUE / 2).any()
    plain = AttentionBias(2, 2)
    plain.build(scores.shape)
    plain.set_weights(bias.get_weights())
    cut = KeyMask(_REGIONS, 2)(plain(scores)).numpy()

    def softmax(values):
        powers = np.exp(values - values.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    assert np.abs(softmax(masked) - softmax(cut)).max() < 1 / 256 / 4


def test_training_shows_a_grid_no_less_than_it_has_to():
    scores = np.random.default_rng(0).normal(-20.0, 5.0, (2, 4, 4, 4))
    scores = scores.astype(np.float32)
    found = KeyMask(_REGIONS, 2)(scores, training=True).numpy()
    sees = np.equal.outer(_REGIONS[0], _REGIONS[0])
    seen = np.where(sees, scores[:, :2], -np.inf)
    alone = np.where(np.eye(4), scores[:, 2:], -np.inf)
    low = min(part.max(-1).min() for part in (seen, alone)) - 10.0
    wanted = np.where(sees, scores[:, :2], np.minimum(scores[:, :2], low))
    np.testing.assert_array_equal(found[:, :2], wanted)


@pytest.mark.parametrize("mean", [0.0, -20.0])
def test_a_quantized_network_hides_as_the_float_one(mean):
    """In inference, and as its file."""
    inputs = keras.Input((4, 4, 4))
    x = keras.layers.DepthwiseConv2D(1, name="scores")(inputs)
    bias = AttentionBias(2, 2, _REGIONS, name="bias")
    model = keras.Model(inputs, keras.layers.Softmax()(bias(x)))
    model.get_layer("scores").depthwise_kernel.assign(np.ones((1, 1, 4, 1)))
    images = np.random.default_rng(0).normal(mean, 1.0, (64, 4, 4, 4))
    images = images.astype(np.float32)
    hidden = model(images).numpy() < 1e-6
    assert 0.5 < hidden.mean() < 0.7
    twin = quantize_model(model, BitScheme(8, 8))
    calibrate(twin, [images])
    network = inference_model(twin).model
    found = twin(images).numpy()
    assert (found[hidden] == 0.0).all()
    np.testing.assert_array_equal(found, network(images).numpy())


def test_config_returns_the_layer():
    mask = KeyMask(_REGIONS, 2, name="mask")
    again = KeyMask.from_config(mask.get_config())
    scores = np.random.default_rng(0).normal(0, 9, (1, 4, 4, 4))
    np.testing.assert_array_equal(mask(scores), again(scores))
