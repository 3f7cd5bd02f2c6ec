import numpy as np

from qgen_tf.layers import MASK_VALUE, AttentionBias
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


def test_attention_is_that_of_the_bias_with_a_mask():
    """To less than a level of softmax, which is 1/256."""
    bias = AttentionBias(2, 2, _REGIONS)
    scores = np.random.default_rng(0).normal(size=(3, 4, 4, 4))
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


def test_config_returns_the_layer():
    mask = KeyMask(_REGIONS, 2, name="mask")
    again = KeyMask.from_config(mask.get_config())
    scores = np.random.default_rng(0).normal(0, 9, (1, 4, 4, 4))
    np.testing.assert_array_equal(mask(scores), again(scores))
