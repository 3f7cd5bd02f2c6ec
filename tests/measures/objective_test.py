"""Gradients and replicas; the loss itself is in evaluate_test."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.measures.objective import Objective
from tests import imports
from tests.measures import closed_forms
from tests.measures.closed_forms import IMAGES, LABELS

KERNEL = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def _objective(model, dataset, loss_fn=closed_forms.quadratic):
    return Objective(model, dataset, loss_fn, model.trainable_variables)


@pytest.mark.parametrize("batch_size", [1, 20, 32])
def test_the_gradient_of_a_quadratic(batch_size):
    model = closed_forms.network(KERNEL)
    dataset = closed_forms.dataset(batch_size=batch_size)
    loss, accuracy, (gradient,) = _objective(model, dataset).gradient()
    outputs = IMAGES @ KERNEL
    assert loss == pytest.approx((outputs**2).sum() / 2 / len(IMAGES), rel=1e-5)
    assert accuracy == (outputs.argmax(axis=1) == LABELS).mean()
    truth = IMAGES.T @ outputs / len(IMAGES)
    np.testing.assert_allclose(gradient, truth, rtol=1e-4, atol=1e-5)


def test_other_data_need_no_new_trace():
    traces = []

    def loss_fn(labels, outputs):
        traces.append(outputs.shape)
        return closed_forms.quadratic(labels, outputs)

    model = closed_forms.network(KERNEL)
    objective = _objective(model, closed_forms.dataset(batch_size=16), loss_fn)
    objective()
    objective.gradient()
    expected = len(traces)
    other = objective.on(closed_forms.dataset(2 * IMAGES[:16], LABELS[:16], 16))
    assert other.num_examples == 16
    assert objective.num_examples == 32
    value, _ = other()
    truth = ((2 * IMAGES[:16] @ KERNEL) ** 2).sum() / 2 / 16
    assert value == pytest.approx(truth, rel=1e-5)
    assert other.gradient()[0] == pytest.approx(truth, rel=1e-5)
    assert objective()[0] == pytest.approx(
        ((IMAGES @ KERNEL) ** 2).sum() / 2 / 32, rel=1e-5
    )
    assert len(traces) == expected


def test_parts_are_every_so_many_th_batch():
    model = closed_forms.network(KERNEL)
    dataset = closed_forms.dataset(batch_size=5)
    reads = []

    def noted(images, labels):
        reads.append(len(labels))
        return images, labels

    objective = _objective(model, dataset)
    noting = tf.data.Dataset.from_generator(
        lambda: (noted(*batch) for batch in dataset),
        output_signature=dataset.element_spec,
    )
    parts = objective.parts(noting, 3, batch_size=8)
    assert len(reads) == 7
    for index, part in enumerate(parts):
        batches = [
            np.arange(start, min(start + 5, 32))
            for start in range(5 * index, 32, 15)
        ]
        chosen = np.concatenate(batches)
        outputs = IMAGES[chosen] @ KERNEL
        for _ in range(2):
            loss, accuracy = part()
            assert loss == pytest.approx(
                (outputs**2).sum() / 2 / len(chosen), rel=1e-5
            )
            assert accuracy == (outputs.argmax(1) == LABELS[chosen]).mean()
    assert len(reads) == 7  # held


_TWO_REPLICAS = """
import numpy as np
import tensorflow as tf
from qgen_tf.compat import keras
from qgen_tf.measures import average_sharpness, perturbations
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.measures.objective import Objective
from tests import harness

(cpu,) = tf.config.list_physical_devices("CPU")
device = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [device, device])
strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
assert strategy.num_replicas_in_sync == 2
images, labels = harness.digits()
# the last batch has one example: a replica gets none
data = tf.data.Dataset.from_tensor_slices((images[:97], labels[:97])).batch(32)


def twin():
    keras.utils.set_random_seed(0)
    model = harness.quantize_model(harness.residual(), harness.W4A4)
    harness.calibrate(model, harness.calibration_data())
    return model


one = twin()
with strategy.scope():
    two = twin()
for measured in (one, two):
    objective = Objective(
        measured, data, cross_entropy, perturbations.kernels(measured)
    )
    found = [objective(), *objective.gradient()]
    result = average_sharpness(
        measured, data, num_samples=4, sigma=0.5, examples_per_draw=40
    )
    if measured is one:
        expected, sharpness = found, result
(loss, accuracy), *rest = found
assert loss == expected[0][0] or abs(loss / expected[0][0] - 1) < 1e-5
assert abs(accuracy - expected[0][1]) < 1e-12
for a, b in zip(tf.nest.flatten(rest), tf.nest.flatten(expected[1:])):
    scale = np.abs(b).max()
    np.testing.assert_allclose(a, b, atol=1e-4 * scale + 1e-7)
assert abs(result.value / sharpness.value - 1) < 1e-2, (result, sharpness)
assert sharpness.value > 1e-4
print("same")
"""


@pytest.mark.full  # replicas_test.py has a short one
def test_two_replicas_measure_as_one():
    done = subprocess.run(
        [sys.executable, "-c", _TWO_REPLICAS],
        capture_output=True,
        text=True,
        cwd=imports.REPOSITORY,
    )
    assert done.stdout.strip().endswith("same"), done.stderr[-3000:]
