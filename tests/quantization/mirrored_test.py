"""Quantization-aware training on two replicas is that on one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import imports

_CODE = """
import contextlib, json, sys
import numpy as np
import tensorflow as tf
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme, inference_model
from tests import harness

two = sys.argv[1] == "two"
scheme = BitScheme(4, 4, quantizer=sys.argv[2])


def grids(model):
    names = ("log_step", "zero_point", "minimum", "maximum")
    return {
        variable.name: variable.numpy()
        for variable in model.variables
        if variable.name.split(":")[0].endswith(names)
    }


(cpu,) = tf.config.list_physical_devices("CPU")
if two:
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device, device])
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    assert strategy.num_replicas_in_sync == 2
    scope = strategy.scope()
else:
    scope = contextlib.nullcontext()
keras.utils.set_random_seed(0)
with scope:
    model = harness.residual()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # statistics are of a replica
    twin = harness.quantize_model(model, scheme)
    harness.calibrate(twin, harness.calibration_data())
    before = grids(twin)
    twin.compile(keras.optimizers.SGD(0.002, 0.9), harness.loss())
images, labels = harness.digits()
data = tf.data.Dataset.from_tensor_slices((images[:384], labels[:384]))
history = twin.fit(data.batch(64), epochs=2, verbose=0)
print(json.dumps({
    "losses": history.history["loss"],
    "grids": [value.tolist() for value in grids(twin).values()],
    "moved": max(
        float(np.abs(value - before[name]).max())
        for name, value in grids(twin).items()
    ),
    "logits": inference_model(twin).model(images[:64]).numpy().tolist(),
}))
"""


def _run(replicas, quantizer):
    done = subprocess.run(
        [sys.executable, "-c", _CODE, replicas, quantizer],
        env=os.environ | {"PYTHONPATH": str(imports.REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantizer", ["lsq", pytest.param("minmax", marks=pytest.mark.full)]
)
def test_two_replicas_train_as_one(quantizer):
    one, two = _run("one", quantizer), _run("two", quantizer)
    assert one["moved"] > 1e-3
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    for first, second in zip(one["grids"], two["grids"], strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)
    assert np.isfinite(two["logits"]).all()
