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
from qgen_tf.quantization import inference_model
from tests import harness

two = sys.argv[1] == "two"
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
    twin = harness.quantize_model(model, harness.W4A4)
    harness.calibrate(twin, harness.calibration_data())
    before = harness.steps_of(twin)
    twin.compile(keras.optimizers.SGD(0.002, 0.9), harness.loss())
images, labels = harness.digits()
data = tf.data.Dataset.from_tensor_slices((images[:384], labels[:384]))
history = twin.fit(data.batch(64), epochs=2, verbose=0)
print(json.dumps({
    "losses": history.history["loss"],
    "steps": [v.tolist() for v in harness.steps_of(twin).values()],
    "moved": max(
        float(np.abs(np.log(v / before[k])).max())
        for k, v in harness.steps_of(twin).items()
    ),
    "logits": inference_model(twin).model(images[:64]).numpy().tolist(),
}))
"""


def _run(replicas):
    done = subprocess.run(
        [sys.executable, "-c", _CODE, replicas],
        env=os.environ | {"PYTHONPATH": str(imports.REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_two_replicas_train_as_one():
    one, two = _run("one"), _run("two")
    assert one["moved"] > 1e-3
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    for first, second in zip(one["steps"], two["steps"], strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4)
    assert np.isfinite(two["logits"]).all()
