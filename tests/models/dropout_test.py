"""Dropout is a function of seed and epoch: a killed training repeats it."""

import numpy as np
import pytest

from qgen_tf import models
from qgen_tf.training.callbacks import EpochSeed

_DROPPED = {"dropout": 0.5}


@pytest.mark.parametrize(
    "config",
    [
        {"name": "nin", "width": 8, "depth": 1, **_DROPPED},
        {"name": "cifar_vit", "depth": 1, "drop_path": 0.5, **_DROPPED},
        {"name": "cifar_swin", "drop_path": 0.5, **_DROPPED},
    ],
    ids=lambda config: config["name"],
)
def test_an_epoch_draws_the_same_again(config):
    model = models.build(config, (32, 32, 3), 10)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3))

    def outputs(epoch, *, passes=1):
        seed = EpochSeed(0)
        seed.set_model(model)
        seed.on_epoch_begin(epoch)
        for _ in range(passes):
            result = model(images.astype(np.float32), training=True)
        return result.numpy()

    first = outputs(3)
    np.testing.assert_array_equal(outputs(3), first)
    assert not np.array_equal(outputs(4), first)
    assert not np.array_equal(outputs(3, passes=2), first)
