"""Losses that are no number."""

import math

import numpy as np
import pytest

from qgen_tf import errors, training
from qgen_tf.compat import keras
from qgen_tf.training import RunDirectory, callbacks
from tests import tiny
from tests.faults import disk


@pytest.fixture
def kept(tmp_path):
    """A model and what keeps its epochs, one of which is done."""
    run = RunDirectory.create(tmp_path, tiny.config())
    model = keras.Sequential([keras.layers.Dense(4, input_shape=(8,))])
    backup = callbacks.EpochBackup(run, model, keras.optimizers.SGD())
    backup.on_epoch_end(0, {"loss": 1.0})
    return model, backup


@pytest.mark.parametrize("strange", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["the loss is (nan|inf)", "dense.* is not"])
def test_the_epoch_before_is_kept(kept, refused, what, strange):
    model, backup = kept
    weights = model.get_weights()
    in_loss = what.startswith("the loss")
    model.layers[0].kernel[0, 0].assign(0.0 if in_loss else strange)
    with refused(f"diverged in epoch 2: {what}.*; lower", errors.ModelError):
        backup.on_epoch_end(1, {"loss": strange if in_loss else 1.0})
    model.set_weights([weight + 1.0 for weight in weights])
    assert backup.restore() == 1
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])


def test_a_training_whose_last_step_diverges_is_not_finished(
    tmp_path, refused, monkeypatch
):
    def diverge(self, batch, logs=None):
        (*_, bias) = self.model.trainable_variables
        bias.assign(bias / 0.0)

    # after the step, whose loss is that of the weights before it
    monkeypatch.setattr(callbacks.ProgressBar, "on_train_batch_end", diverge)
    config = tiny.config(epochs=1)
    config.training.batch_size = config.dataset.num_train
    with refused("diverged in epoch 1: .* is not finite", errors.ModelError):
        training.train(config, tmp_path)
    assert not list(tmp_path.glob("*/final.weights.h5"))
    assert not list(tmp_path.glob("*/train.json"))
    assert not list(tmp_path.glob("*/backup/*"))
    assert not disk.unfinished(tmp_path)
