import numpy as np
import pytest

from qgen_tf.compat import keras
from qgen_tf.models import nin


@pytest.mark.parametrize("depth", [1, 3])
def test_weights_add_up(depth):
    model = nin((16, 16, 3), 7, width=5, depth=depth)
    spatial = 9 * 3 * 5 + (depth - 1) * 9 * 5 * 5
    mixing = depth * 2 * 5 * 5
    norms = depth * 3 * 4 * 5
    assert model.count_params() == spatial + mixing + norms + 5 * 7 + 7


def test_each_block_halves_the_image():
    model = nin((16, 12, 3), 7, width=4, depth=2)
    assert model.get_layer("block0_mix1_relu").output.shape[1:3] == [8, 6]
    assert model.get_layer("block1_mix1_relu").output.shape[1:3] == [4, 3]
    logits = model(np.ones((2, 16, 12, 3), np.float32)).numpy()
    assert logits.shape == (2, 7) and np.isfinite(logits).all()
    assert (logits < 0).any()  # not probabilities


def test_dropout_acts_in_training_only():
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1))
    model = nin((8, 8, 1), 3, width=16, depth=1, dropout=0.5)
    rates = [
        layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert rates == [0.5]
    model.get_layer("block0_mix1_bn").trainable = False
    first, second = (model(images, training=True).numpy() for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(model(images), model(images))
    assert not [
        layer
        for layer in nin((8, 8, 1), 3, width=4).layers
        if isinstance(layer, keras.layers.Dropout)
    ]
