"""Strategies by name, and what the chief of several workers decides."""

import json

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors, training
from qgen_tf.compat import keras
from qgen_tf.training import strategies


def test_one_device_is_the_default():
    strategy = training.get_strategy("one_device")
    assert strategy is tf.distribute.get_strategy()
    with strategy.scope():
        assert strategies.num_replicas() == 1
        assert strategies.is_chief()


def test_mirrored_has_a_replica_for_each_device():
    strategy = training.get_strategy("mirrored")
    devices = tf.config.list_logical_devices(
        "GPU"
    ) or tf.config.list_logical_devices("CPU")
    with strategy.scope():
        assert strategies.num_replicas() == len(devices)
        assert strategies.is_chief()
    assert strategies.num_replicas() == 1


def test_an_unknown_strategy_is_refused():
    with pytest.raises(errors.ConfigError, match="'mirored' is unknown"):
        training.get_strategy("mirored")


@pytest.mark.parametrize("name", [None, [], {}, 3])
def test_what_is_no_name_of_a_strategy_is_refused(name):
    with pytest.raises(errors.ConfigError, match="is unknown: choose one of"):
        training.get_strategy(name)


_WORKERS = ["localhost:1", "localhost:2"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        json.dumps({"cluster": {"worker": _WORKERS}}),
        json.dumps({"cluster": {}, "task": {"type": "worker", "index": 0}}),
        json.dumps(
            {
                "cluster": {"worker": _WORKERS},
                "task": {"type": "worker", "index": 2},
            }
        ),
        json.dumps(
            {
                "cluster": {"worker": _WORKERS},
                "task": {"type": "worker", "index": "0"},
            }
        ),
    ],
)
def test_a_cluster_that_is_none_is_refused(monkeypatch, content):
    monkeypatch.setenv("TF_CONFIG", content)
    with pytest.raises(errors.ConfigError, match="TF_CONFIG, which is '"):
        training.get_strategy("multi_worker_mirrored")


def test_several_workers_need_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(errors.ConfigError, match='"index": N'):
        training.get_strategy("multi_worker_mirrored")


def test_no_tpu_is_said_in_one_sentence(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(errors.ConfigError, match="TPU_NAME"):
        training.get_strategy("tpu")


def test_one_process_is_its_own_chief():
    assert strategies.from_chief(2.5) == 2.5
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    before = model.get_weights()
    strategies.share(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scratch_folder_is_kept_while_the_process_runs():
    folder = strategies.scratch()
    assert folder.is_dir()
    assert strategies.scratch() == folder
