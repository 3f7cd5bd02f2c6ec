"""Optimizers: schedule, weight decay, errors."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.config import default_config
from qgen_tf.training import optimizers


def _settings(**fields):
    settings = default_config().training
    settings.update(fields)
    return settings


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_the_learning_rate_warms_up_and_decays_to_zero(name):
    optimizer = optimizers.build(
        _settings(optimizer=name), learning_rate=0.5, steps=20, warmup_steps=5
    )
    schedule = optimizer._learning_rate
    rates = [float(schedule(step)) for step in range(21)]
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(0.5)
    assert np.all(np.diff(rates[:6]) > 0) and np.all(np.diff(rates[5:]) < 0)
    assert rates[20] == pytest.approx(0.0, abs=1e-7)


def test_a_training_shorter_than_its_warmup_still_has_a_schedule():
    optimizer = optimizers.build(
        _settings(), learning_rate=0.5, steps=1, warmup_steps=10
    )
    assert float(optimizer._learning_rate(0)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_weight_decay_shrinks_kernels_only(name):
    optimizer = optimizers.build(
        _settings(optimizer=name, weight_decay=0.1),
        learning_rate=0.5,
        steps=10,
        warmup_steps=0,
    )
    names = ("kernel", "bias", "gamma", "beta", "kernel_log_step")
    names += ("position_embedding", "class_token", "relative_position_bias")
    variables = [tf.Variable([1.0], name=name) for name in names]
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.zeros(1), each) for each in variables])
    values = {each.name.split(":")[0]: float(each[0]) for each in variables}
    assert values["kernel"] == pytest.approx(1.0 - 0.1 * 0.5)
    assert [values[name] for name in names[1:]] == [1.0] * 7


@pytest.mark.parametrize(
    ("fields", "learning_rate", "message"),
    [
        ({"optimizer": "lion"}, 0.1, "choose one of"),
        ({}, 0.0, "learning_rate is 0"),
        ({"weight_decay": -1.0}, 0.1, "weight_decay is -1"),
    ],
)
def test_errors(fields, learning_rate, message):
    with pytest.raises(errors.ConfigError, match=message):
        optimizers.build(
            _settings(**fields),
            learning_rate=learning_rate,
            steps=10,
            warmup_steps=0,
        )
