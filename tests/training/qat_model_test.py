"""The losses of QATModel: their values, their gradients, what they train."""

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    QUANTIZERS,
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.quantize import wrappers
from qgen_tf.training import CosineRise, QATModel, qat_model
from tests import harness
from tests.quantization.quantizers import wrapped

W2A2 = BitScheme(2, 2)
pytestmark = pytest.mark.slow


def _examples(count=96):
    images, labels = harness.digits()
    return images[:count], labels[:count]


def _twin(scheme=W2A2):
    model = quantize_model(harness.trained(harness.small_nin), scheme)
    calibrate(model, harness.calibration_data())
    return model


def _weights(model):
    """Yields (weight, quantizer, variables)."""
    for wrapper in wrappers(model):
        yield from wrapper._weight_vars


def _softmax(logits, temperature):
    powers = np.exp(np.asarray(logits, np.float64) / temperature)
    return powers / powers.sum(-1, keepdims=True)


def _imitation(teacher_logits, logits, temperature):
    wanted = _softmax(teacher_logits, temperature)
    found = _softmax(logits, temperature)
    divergence = (wanted * np.log(wanted / found)).sum(-1)
    return temperature**2 * divergence


def _cross_entropy(logits, labels):
    return -np.log(_softmax(logits, 1.0)[np.arange(len(labels)), labels])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_loss(temperature):
    generator = np.random.default_rng(0)
    teacher, logits = 3.0 * generator.normal(size=(2, 6, 5))
    found = qat_model.distillation_loss(teacher, logits, temperature)
    np.testing.assert_allclose(
        found, _imitation(teacher, logits, temperature), rtol=1e-5
    )


def test_gradients_of_distillation_do_not_shrink_with_the_temperature():
    # for T to infinity, that of the squared distance: Hinton et al. section 2.1
    teacher = tf.constant([[1.0, -2.0, 1.0]])
    logits = tf.constant([[0.5, 0.0, -0.5]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = qat_model.distillation_loss(teacher, logits, 100.0)
    np.testing.assert_allclose(
        tape.gradient(loss, logits), (logits - teacher) / 3.0, rtol=0.02
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_latent_error(name, bits):
    quantizer = QUANTIZERS[name].weights(bits, axes=(-1,))
    values = np.random.default_rng(bits).standard_t(4, size=(3, 3, 4, 2))
    weight, variables = wrapped.weight(quantizer, 0.3 * values)
    grid = quantizer.grid(weight, variables)
    last = quantizer.high
    if name in ("pact", "dorefa") and bits < 8:
        last = 2**bits - 1  # odd levels
    reach = last * grid.step_size
    wanted = grid.values - np.clip(grid.latent, -reach, reach)
    with tf.GradientTape() as tape:
        error = qat_model.latent_error(weight, quantizer, variables)
        loss = tf.reduce_sum(tf.square(error))
    np.testing.assert_allclose(error, wanted, rtol=1e-4, atol=1e-6)
    bins = quantizer.stride * grid.step_size
    assert (np.abs(error) <= 0.5 * bins + 1e-6).all()
    gradient, *others = tape.gradient(loss, [weight, *variables.values()])
    assert others == [None] * len(variables)
    inside = np.abs(grid.latent) < reach
    slope = 1.0
    if name in ("pact", "dorefa") and bits > 1:
        slope = 1.0 - np.square(np.tanh(weight.numpy()))
    np.testing.assert_allclose(
        gradient, -2.0 * wanted * slope * inside, rtol=1e-3, atol=2e-6
    )


def test_the_weight_of_dampening_rises_like_a_cosine():
    rise = CosineRise(0.5, 8)
    values = [float(rise(tf.constant(step))) for step in range(10)]
    assert values[0] == 0.0
    assert values[4] == pytest.approx(0.25)
    assert values[2] == pytest.approx(0.25 * (1 - 0.5**0.5), rel=1e-4)
    assert values[8] == values[9] == pytest.approx(0.5)
    assert CosineRise(**rise.get_config()).get_config() == rise.get_config()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_sum_of_its_parts(weighted):
    model, teacher = _twin(), harness.trained(harness.small_nin)
    images, labels = _examples()
    weights = np.linspace(0.1, 2.0, len(labels)) if weighted else None
    student = QATModel(
        model, teacher=teacher, distillation=0.3, temperature=2.0, dampening=0.1
    )
    student.compile("sgd", harness.loss())
    found = student.evaluate(
        images, labels, len(images), verbose=0, sample_weight=weights
    )
    logits, wanted = model(images), teacher(images)
    each = 0.7 * _cross_entropy(logits, labels)
    each = each + 0.3 * _imitation(wanted, logits, 2.0)
    dampening = sum(
        np.square(qat_model.latent_error(*quantized)).sum()
        for quantized in _weights(model)
    )
    expected = (each * (weights if weighted else 1.0)).mean() + 0.1 * dampening
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_teacher_and_dampening_it_is_the_model():
    losses = []
    for wrap in (lambda model: model, QATModel):
        model = wrap(_twin())
        model.compile("adam", harness.loss())
        history = model.fit(*_examples(), shuffle=False, epochs=2, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]


def test_float_weights_are_not_dampened():
    model = _twin(BitScheme(32, 4))
    assert float(qat_model.dampening_loss(model)) == 0.0


def test_regularization_is_kept():
    images, labels = _examples()
    losses = []
    for wrap in (lambda model: model, QATModel):
        model = wrap(_twin(BitScheme(2, 2, quantizer="pact")))
        assert model.losses
        model.compile("sgd", harness.loss())
        losses.append(model.evaluate(images, labels, len(images), verbose=0))
    assert losses[0] == losses[1]


def test_the_teacher_is_neither_trained_nor_saved():
    model, teacher = _twin(), harness.small_nin()
    student = QATModel(model, teacher=teacher)
    before = [variable.numpy() for variable in teacher.variables]
    student.compile("adam", harness.loss())
    student.fit(*_examples(), epochs=1, verbose=0)
    for variable, old in zip(teacher.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    names = [variable.name for variable in model.variables]
    assert [variable.name for variable in student.variables] == names
    assert student.variables[0] is model.variables[0]
    tracked = tf.train.TrackableView(student).descendants()
    assert any(each is model.variables[0] for each in tracked)
    for variable in teacher.variables:
        assert not any(each is variable for each in tracked)


def test_it_is_a_graph_of_the_same_layers():
    model = _twin()
    student = QATModel(model, teacher=harness.trained(harness.small_nin))
    assert student.layers == model.layers
    images, _ = _examples()
    np.testing.assert_array_equal(
        inference_model(student).model(images),
        inference_model(model).model(images),
    )


def test_a_student_comes_close_to_its_teacher_without_labels():
    teacher, model = harness.trained(harness.small_nin), _twin()
    images, labels = _examples(256)
    student = QATModel(model, teacher=teacher, distillation=1.0)
    student.compile(keras.optimizers.Adam(5e-3), harness.loss())
    before = _imitation(teacher(images), model(images), 4.0).mean()
    student.fit(images, 0 * labels, shuffle=False, epochs=4, verbose=0)
    after = _imitation(teacher(images), model(images), 4.0).mean()
    assert after < 0.5 * before


def test_dampened_weights_leave_the_edges_of_their_bins():
    model = _twin()
    before = _share_at_the_edge(model)
    student = QATModel(model, dampening=CosineRise(10.0, 16))
    student.compile(keras.optimizers.Adam(5e-3), harness.loss())
    student.fit(*_examples(128), shuffle=False, epochs=4, verbose=0)
    assert int(student.optimizer.iterations) == 16
    assert _share_at_the_edge(model) < 0.5 * before


def _share_at_the_edge(model):
    shares = [
        np.abs(qat_model.latent_error(weight, quantizer, variables).numpy())
        > 0.4 * quantizer.step_size(weight, variables).numpy()
        for weight, quantizer, variables in _weights(model)
    ]
    return np.concatenate([share.ravel() for share in shares]).mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distillation": 1.5}, "distillation is 1.5"),
        ({"distillation": float("nan")}, "distillation is nan"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"dampening": -1.0}, "dampening is -1"),
    ],
)
def test_errors(settings, message):
    model = harness.calibrated(harness.small_nin, W2A2)
    with pytest.raises(errors.ConfigError, match=message):
        QATModel(model, **settings)


def test_a_teacher_of_other_classes():
    inputs = keras.layers.Input((8, 8, 1))
    outputs = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    model = harness.calibrated(harness.small_nin, W2A2)
    with pytest.raises(errors.ModelError, match="the same classes"):
        QATModel(model, teacher=keras.Model(inputs, outputs))
