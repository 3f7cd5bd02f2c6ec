"""Loss and accuracy: by hand, in any batches, and loud where they mean none."""

import math
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.evaluate import evaluate, predictor
from qgen_tf.measures.losses import cross_entropy
from qgen_tf.measures.objective import Objective


def _identity(images):
    return images


def _batches(images, labels, batch_size=2):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(
        batch_size
    )


def _classifier():
    inputs = keras.Input([6])
    x = keras.layers.Dense(8, activation="relu")(inputs)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def _examples(count=11):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(count, 6)).astype(np.float32)
    return images, generator.integers(3, size=count)


def test_loss_and_accuracy_by_hand():
    logits = np.log(np.array([[1, 3], [1, 1], [9, 1]], np.float32))
    evaluation = evaluate(_identity, _batches(logits, [0, 0, 0]))
    losses = [math.log(4), math.log(2), math.log(10 / 9)]
    np.testing.assert_allclose(evaluation.losses, losses, rtol=1e-6)
    np.testing.assert_array_equal(evaluation.correct, [False, True, True])
    assert evaluation.loss == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert evaluation.accuracy == pytest.approx(200 / 3)


def test_an_error_of_one_batch_ends_the_evaluation():
    images, labels = _examples(40)
    calls = []

    def predict(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise errors.DataError("the third")
        return batch[:, :3]

    with pytest.raises(errors.DataError, match="the third"):
        evaluate(predict, _batches(images, labels, 2))
    assert len(calls) == 3


def test_a_plain_function_gets_arrays_in_the_order_of_the_data_set():
    seen = []

    def predict(images):
        assert isinstance(images, np.ndarray)
        seen.append(images)
        return images

    images = np.eye(5, dtype=np.float32)
    evaluate(predict, _batches(images, np.zeros(5, np.int64)))
    assert [len(batch) for batch in seen] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(seen), images)


def test_another_loss_is_taken():
    def margin(labels, logits):
        del labels
        return logits[:, 0] - logits[:, 1]

    logits = np.array([[3.0, 1.0], [0.0, 5.0]], np.float32)
    evaluation = evaluate(_identity, _batches(logits, [0, 0]), margin)
    assert evaluation.losses.tolist() == [2.0, -5.0]


def test_logits_are_let_go():
    images = np.zeros((40_000, 1), np.float32)
    labels = np.zeros(40_000, np.int64)

    def predict(batch):
        return np.zeros((len(batch), 100), np.float32)

    tracemalloc.start()
    try:
        evaluation = evaluate(predict, _batches(images, labels, 500))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert evaluation.loss == pytest.approx(math.log(100), rel=1e-6)
    assert len(evaluation.losses) == len(evaluation.correct) == 40_000
    assert peak < 4 * 2**20  # of logits there were 15


@pytest.mark.parametrize("batch_size", [1, 999, 30_000])
def test_losses_are_those_of_their_examples_however_many_wait(batch_size):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(30_000, 4)).astype(np.float32)
    logits = logits[: 3_000 if batch_size == 1 else 30_000]
    labels = generator.integers(4, size=len(logits))
    evaluation = evaluate(_identity, _batches(logits, labels, batch_size))
    exponents = np.exp(logits.astype(np.float64))
    chosen = exponents[np.arange(len(labels)), labels]
    expected = np.log(exponents.sum(axis=1) / chosen)
    np.testing.assert_allclose(evaluation.losses, expected, rtol=1e-5)
    hits = logits.argmax(axis=1) == labels
    np.testing.assert_array_equal(evaluation.correct, hits)


def test_a_wrong_loss_is_found_at_the_first_batch():
    seen = []

    def predict(images):
        seen.append(len(images))
        return images

    def mean_loss(labels, logits):
        return tf.reduce_mean(cross_entropy(labels, logits))

    dataset = _batches(np.eye(6, dtype=np.float32), np.zeros(6, np.int64))
    with pytest.raises(errors.ConfigError, match="loss of each example"):
        evaluate(predict, dataset, mean_loss)
    assert seen == [2]


def test_predictor_runs_in_inference_mode():
    model = _classifier()
    images, _ = _examples()
    outputs = predictor(model)(images)
    assert isinstance(outputs, np.ndarray)
    np.testing.assert_allclose(
        outputs, model(images, training=False).numpy(), atol=1e-6
    )


@pytest.mark.parametrize("measure", ["evaluate", "objective"])
def test_an_empty_data_set_is_an_error(measure):
    empty = _batches(*_examples()).take(0)
    with pytest.raises(errors.DataError, match="is empty"):
        if measure == "evaluate":
            evaluate(_identity, empty)
        else:
            Objective(_classifier(), empty, cross_entropy)()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error(bad):
    logits = np.array([[0, 1], [bad, 1], [0, 1]], np.float32)
    with pytest.raises(errors.ModelError, match="not finite"):
        evaluate(_identity, _batches(logits, [1, 1, 1]))


def test_a_mean_in_the_place_of_losses_is_an_error():
    def mean_loss(labels, logits):
        return tf.reduce_mean(cross_entropy(labels, logits))

    dataset = _batches(*_examples())
    model = _classifier()
    with pytest.raises(errors.ConfigError, match="loss of each example"):
        evaluate(predictor(model), dataset, mean_loss)
    with pytest.raises(errors.ConfigError, match="loss of each example"):
        Objective(model, dataset, mean_loss)()


@pytest.mark.parametrize("label_type", [np.int32, np.int64])
@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_objective_is_the_mean_of_evaluate(batch_size, label_type):
    model = _classifier()
    images, labels = _examples()
    evaluation = evaluate(predictor(model), _batches(images, labels))
    dataset = _batches(images, labels.astype(label_type), batch_size)
    loss, accuracy = Objective(model, dataset, cross_entropy)()
    assert loss == pytest.approx(evaluation.loss, rel=1e-6)
    assert 100 * accuracy == pytest.approx(evaluation.accuracy, rel=1e-12)
    assert 0 < accuracy < 1


def test_objective_follows_the_weights_without_a_new_trace():
    traces = []

    def loss_fn(labels, logits):
        traces.append(logits.shape)
        return cross_entropy(labels, logits)

    model = _classifier()
    objective = Objective(model, _batches(*_examples(), 4), loss_fn)
    before, _ = objective()
    assert 1 <= len(traces) <= 2  # whole batches and the last, smaller one
    expected = len(traces)
    for variable in model.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    after, _ = objective()
    assert after == pytest.approx(math.log(3), rel=1e-6) != before
    assert len(traces) == expected


def test_objective_counts_an_overflow_as_wrong():
    inputs = keras.Input([1])
    large = keras.layers.Rescaling(10.0)(inputs)
    logits = keras.layers.Dense(2, kernel_initializer="zeros")(large)
    model = keras.Model(inputs, logits)
    # infinity times 0 is NaN: argmax takes the first class, which is no hit
    images = np.array([[3e38], [2]], np.float32)
    loss, accuracy = Objective(
        model, _batches(images, np.array([0, 0])), cross_entropy
    )()
    assert math.isnan(loss)
    assert accuracy == 0.5
