"""Trainings that end at a loss."""

import math

import numpy as np
import pandas as pd
import pytest

from qgen_tf import data, errors, measures, training
from qgen_tf.quantization import align
from qgen_tf.training import TRAINED_FILE
from qgen_tf.training.loss_target import LossTarget
from tests import tiny

_TARGET = 2.24  # nats; the tiny model starts at log(10) and passes it


@pytest.fixture(scope="module")
def config():
    return tiny.config(epochs=8, stop_at_loss=_TARGET)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return training.train(config, tmp_path_factory.mktemp("runs"))


def test_training_ends_at_the_target(run):
    losses = pd.read_csv(run.path / "history.csv")["train_loss"]
    assert 1 < len(losses) < 8
    assert losses.iloc[-1] <= _TARGET < losses.iloc[:-1].min()
    facts = run.read_json(TRAINED_FILE)
    assert facts["epochs"] == len(losses)
    assert facts["stopped_at_loss"] == losses.iloc[-1]


def test_the_loss_is_that_of_the_trained_model(run, config):
    model = training.load_model(run.path)
    splits = data.load(config.dataset)
    found = measures.evaluate(
        measures.predictor(model), splits.train.batch(256)
    )
    facts = run.read_json(TRAINED_FILE)
    assert facts["stopped_at_loss"] == pytest.approx(found.loss, rel=1e-5)


def test_a_twin_that_is_there_is_not_trained(run, config):
    twin = training.train(training.with_bits(config, 8, 8), run.path.parent)
    facts = twin.read_json(TRAINED_FILE)
    of_float = run.read_json(TRAINED_FILE)["stopped_at_loss"]
    assert facts["epochs"] == 0
    assert facts["stopped_at_loss"] == pytest.approx(of_float, abs=0.02)
    assert pd.read_csv(twin.path / "history.csv").empty
    initial, final = (
        training.load_model(twin.path, initial=initial)
        for initial in (True, False)
    )
    align(initial)
    for one, other in zip(
        initial.get_weights(), final.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_target_that_is_not_reached_says_so(tmp_path):
    config = tiny.config(epochs=1, stop_at_loss=1e-6)
    facts = training.train(config, tmp_path).read_json(TRAINED_FILE)
    assert facts["stopped_at_loss"] is None
    assert facts["epochs"] == 1


class _Model:
    stop_training = False


def _watched(target, losses, *, steps):
    """Returns the steps at which losses were looked at, and the history."""
    looked, step, losses = [], 0, iter(losses)

    def evaluate():
        looked.append(step)
        return next(losses)

    callback = LossTarget(target, evaluate)
    callback.set_params({"steps": steps})
    callback.set_model(_Model())
    history = pd.DataFrame()
    rows = []
    if callback.is_reached(history):
        return looked, rows, callback.reached
    for epoch in range(3):
        for batch in range(steps):
            step += 1
            callback.on_train_batch_end(batch)
            if callback.model.stop_training:
                break
        logs = {}
        callback.on_epoch_end(epoch, logs)
        rows.append(logs)
        if callback.model.stop_training:
            break
    return looked, rows, callback.reached


def test_the_loss_is_looked_at_more_often_when_it_is_near():
    found = _watched(1.0, [5.0, 2.1, 2.0, 1.5, 1.2, 0.9], steps=16)
    looked, rows, reached = found
    assert looked == [0, 16, 32, 34, 36, 38]
    assert rows == [{"train_loss": 2.1}, {"train_loss": 2.0}] + [
        {"train_loss": 0.9}
    ]
    assert reached == 0.9


def test_what_is_there_at_the_start_is_not_trained():
    assert _watched(1.0, [1.0], steps=16) == ([0], [], 1.0)


def test_without_a_target_nothing_is_looked_at():
    assert _watched(0.0, [], steps=4) == ([], [{}, {}, {}], None)


def test_a_training_killed_at_its_end_is_not_trained_on():
    target = LossTarget(0.5, lambda: math.nan)
    history = pd.DataFrame({"train_loss": [0.9, 0.4]})
    assert not target.is_reached(history[:1])
    assert target.is_reached(history)
    assert target.reached == 0.4
    assert not target.is_reached(history[:0])  # NaN is below nothing


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_a_target_must_be_a_loss(value, tmp_path):
    with pytest.raises(errors.ConfigError, match="stop_at_loss is"):
        training.train(tiny.config(stop_at_loss=value), tmp_path)
