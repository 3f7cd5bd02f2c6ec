"""A verification says what both sides do, counted by other means."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from export import tflite
from export.interpreter import Interpreter
from export.runtime_model import runtime_model
from export.verification import verify
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures import Evaluation
from qgen_tf.measures.equivalence import accuracy_equivalence
from qgen_tf.quantization import inference_model
from tests import harness

_COUNT = 300


@pytest.fixture(scope="module")
def quantized():
    """Returns (model, network, content) of a calibrated 4-bit twin."""
    scheme = harness.BitScheme(4, 8)
    model = harness.calibrated(harness.tiny_nin, scheme)
    network = inference_model(model)
    return model, network, tflite.convert(network)


@pytest.fixture(scope="module")
def classifiers():
    """Returns (model, network, content) of two float classifiers."""
    found = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4, 1, 1))
        outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
        model = keras.Model(inputs, outputs)
        network = inference_model(model)
        found.append((model, network, tflite.convert(network)))
    return found


def _batches(images, labels, batch_size=128):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(
        batch_size
    )


def _digits():
    images, labels = harness.digits()
    train, test = slice(0, _COUNT), slice(harness.NUM_TRAIN, None)
    return (images[train], labels[train]), (images[test], labels[test])


def _points(seed=0, count=_COUNT):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, 4, 1, 1)).astype(np.float32)


def _classes(side, images):
    return side[0](images).numpy().argmax(axis=1)


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_both_sides_are_what_they_are_one_by_one(quantized, kernels):
    model, network, content = quantized
    splits = _digits()
    found = verify(
        *quantized, *(_batches(*split) for split in splits), kernels=kernels
    )
    interpreter = Interpreter(content, kernels=kernels)
    twin = runtime_model(network, kernels=kernels)
    gaps = np.zeros(2)
    for sign, split, (images, labels) in zip(
        (1, -1), (found.train, found.test), splits, strict=True
    ):
        trained = model(images, training=False).numpy()
        file = interpreter.predict(images)
        right = [side.argmax(1) == labels for side in (trained, file)]
        gaps += [sign * 100 * correct.mean() for correct in right]
        assert split.num_examples == len(labels)
        assert split.trained_accuracy == pytest.approx(100 * right[0].mean())
        assert split.accuracy == pytest.approx(100 * right[1].mean())
        step = harness.output_step(network)
        for steps, agreement, other in (
            (split.max_steps, split.argmax_agreement, trained),
            (
                split.max_steps_deployed,
                split.argmax_agreement_deployed,
                twin(images).numpy(),
            ),
        ):
            largest = np.abs(file - other).max() / step
            assert steps == pytest.approx(largest, abs=1e-3)
            same = other.argmax(1) == file.argmax(1)
            assert agreement == pytest.approx(100 * same.mean())
        assert split.max_steps_deployed < 1.01
        assert split.argmax_agreement_deployed >= 99.7
        assert split.equivalence == accuracy_equivalence(
            *(Evaluation(np.zeros(len(labels)), hits) for hits in right[::-1]),
            margin=0.5,
        )
        assert split.mcnemar.only_ours == (right[1] & ~right[0]).sum()
        assert split.mcnemar.only_theirs == (right[0] & ~right[1]).sum()
    assert found.keras_gap.accuracy.value == pytest.approx(gaps[0])
    assert found.tflite_gap.accuracy.value == pytest.approx(gaps[1])
    assert found.difference.accuracy.value == pytest.approx(gaps[1] - gaps[0])
    assert found.kernels == kernels
    assert found.num_bytes == len(content)
    assert found.float_operators == ()
    assert found.corrupted is None


def test_a_float_file_is_the_same_and_its_operators_are_listed(classifiers):
    side = classifiers[0]
    images = _points()
    labels = _classes(side, images)
    dataset = _batches(images, labels)
    found = verify(*side, dataset, dataset)
    assert found.verdict == "same"
    assert found.train.accuracy == 100.0
    assert found.train.max_steps < 1e-5
    assert "FULLY_CONNECTED" in found.float_operators
    assert found.equivalence.p_value == 0.0


def test_the_file_of_another_network_is_found_out(classifiers):
    ours, (_, _, other_file) = classifiers
    theirs = classifiers[1]
    train, test = _points(0), _points(1)
    # the file is right on all training examples, the model on all test ones
    labels = _classes(theirs, train), _classes(ours, test)
    found = verify(
        *ours[:2],
        other_file,
        _batches(train, labels[0]),
        _batches(test, labels[1]),
    )
    agreements = [
        100 * (_classes(ours, images) == _classes(theirs, images)).mean()
        for images in (train, test)
    ]
    assert max(agreements) < 90
    assert found.verdict == "different"
    assert found.difference.accuracy.value == pytest.approx(
        200 - sum(agreements)
    )
    assert found.train.argmax_agreement == pytest.approx(agreements[0])
    assert found.train.mcnemar.only_theirs == 0
    assert found.test.mcnemar.only_ours == 0
    assert found.test.mcnemar.p_value < 1e-6


def test_few_examples_cannot_tell_and_a_wide_margin_can(classifiers):
    ours, (_, _, other_file) = classifiers
    images = _points(count=40)
    labels = np.random.default_rng(3).integers(3, size=40)
    halves = (
        _batches(images[part], labels[part])
        for part in (slice(0, 20), slice(20, 40))
    )
    train, test = halves
    sides = (*ours[:2], other_file, train, test)
    assert verify(*sides).verdict == "cannot tell"
    wide = verify(*sides, margin=99.0)
    assert wide.verdict == "same" and wide.equivalence.margin == 99.0


def test_a_corrupted_set_is_one_more_test_set(classifiers):
    ours, (_, _, other_file) = classifiers
    train, test, third = (
        _batches(_points(seed), np.arange(_COUNT) % 3) for seed in range(3)
    )
    sides = (*ours[:2], other_file, train)
    found = verify(*sides, test, corrupted=third)
    plain = verify(*sides, test)
    assert dataclasses.replace(found, corrupted=None) == plain
    swapped = verify(*sides, third)
    for field in dataclasses.fields(found.corrupted):
        assert getattr(found.corrupted, field.name) == getattr(
            swapped, field.name
        )
    assert found.corrupted.test != found.test


def test_the_seed_moves_the_bootstrap_only(classifiers):
    ours, (_, _, other_file) = classifiers
    train, test = (
        _batches(_points(seed), np.arange(_COUNT) % 3) for seed in range(2)
    )
    sides = (*ours[:2], other_file, train, test)
    first, second = verify(*sides), verify(*sides, seed=1)
    assert first.equivalence == second.equivalence
    assert first.keras_gap.loss.low != second.keras_gap.loss.low
    assert first.difference.accuracy.value == second.difference.accuracy.value


def test_each_data_set_is_read_once_batch_by_batch(classifiers):
    reads, seen = [], []

    def batches():
        reads.append(1)
        for seed in range(5):
            yield _points(seed, 7), np.arange(7) % 3

    dataset = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, 4, 1, 1)),
            tf.TensorSpec((None,), tf.int64),
        ),
    )

    def progress(dataset):
        for batch in dataset:
            seen.append(len(batch[1]))
            yield batch

    found = verify(
        *classifiers[0], dataset, dataset, corrupted=dataset, progress=progress
    )
    assert len(reads) == 3
    assert seen == [7] * 15
    assert found.train == found.test == found.corrupted.test
    assert found.train.num_examples == 35


def test_expanded_weights_are_said_to_be(quantized):
    model, network, _ = quantized
    dataset = _batches(*_digits()[1])
    content = tflite.convert(network, storage="int4")
    found = verify(
        model, network, content, dataset, dataset, expand_low_bits=True
    )
    assert found.expand_low_bits
    assert found.train.max_steps_deployed < 1.01
    assert found.num_bytes == len(content)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"margin": 0.0}, errors.ConfigError, "margin is 0.0"),
        ({"margin": -1.0}, errors.ConfigError, "margin is -1.0"),
        ({"kernels": "fast"}, errors.ExportError, "'fast' are unknown"),
    ],
)
def test_mistakes(classifiers, settings, error, message):
    dataset = _batches(_points(), np.zeros(_COUNT, np.int64))
    with pytest.raises(error, match=message):
        verify(*classifiers[0], dataset, dataset, **settings)


def test_an_empty_set_and_the_file_of_another_task(classifiers, quantized):
    dataset = _batches(_points(), np.zeros(_COUNT, np.int64))
    with pytest.raises(errors.DataError, match="is empty"):
        verify(*classifiers[0], dataset, dataset.take(0))
    inputs = keras.Input((4, 1, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    other = tflite.convert(inference_model(keras.Model(inputs, outputs)))
    with pytest.raises(
        errors.ExportError, match=r"\(2,\), the model of \(3,\)"
    ):
        verify(*classifiers[0][:2], other, dataset, dataset)
