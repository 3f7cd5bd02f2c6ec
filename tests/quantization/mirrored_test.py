"""Quantization-aware training on two replicas is that on one."""

import contextlib
import json

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import forks, harness


def _grids(model):
    names = ("log_step", "zero_point", "minimum", "maximum")
    return {
        variable.name: variable.numpy()
        for variable in model.variables
        if variable.name.split(":")[0].endswith(names)
    }


def _trained(quantizer, scope):
    """Trains in a scope; returns what there is to compare."""
    keras.utils.set_random_seed(0)
    with scope:
        model = harness.residual()
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False  # statistics are of a replica
        twin = quantize_model(model, BitScheme(4, 4, quantizer=quantizer))
        calibrate(twin, harness.calibration_data())
        before = _grids(twin)
        twin.compile(keras.optimizers.SGD(0.002, 0.9), harness.loss())
    images, labels = harness.digits()
    data = tf.data.Dataset.from_tensor_slices((images[:384], labels[:384]))
    history = twin.fit(data.batch(64), epochs=2, verbose=0)
    after = _grids(twin)
    return {
        "losses": history.history["loss"],
        "grids": [value.tolist() for value in after.values()],
        "moved": max(
            float(np.abs(value - before[name]).max())
            for name, value in after.items()
        ),
        "logits": inference_model(twin).model(images[:64]).numpy().tolist(),
    }


def _train(quantizer):
    """Trains on one device and on two; prints both."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device, device])
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    assert strategy.num_replicas_in_sync == 2
    scopes = (contextlib.nullcontext(), strategy.scope())
    print(json.dumps([_trained(quantizer, scope) for scope in scopes]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantizer", ["lsq", pytest.param("minmax", marks=pytest.mark.full)]
)
def test_two_replicas_train_as_one(quantizer):
    done = forks.run(_train, quantizer)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    assert one["moved"] > 1e-3
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    for first, second in zip(one["grids"], two["grids"], strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)
    assert np.isfinite(two["logits"]).all()
