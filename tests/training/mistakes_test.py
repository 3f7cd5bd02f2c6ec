"""What a new user passes by mistake is told in one sentence."""

import math

import numpy as np
import pytest

import qgen_tf
from qgen_tf import errors, training
from qgen_tf.compat import keras
from qgen_tf.quantization import inference_model, quantize_model
from qgen_tf.training import RunDirectory, optimizers, run_path
from tests import harness, tiny


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.fixture(scope="module")
def model():
    return harness.tiny_nin()


@pytest.fixture(scope="module")
def twin(model):
    return quantize_model(model, harness.W8A8)


def _told(error, message):
    """Returns the check that an error is one sentence with the message."""
    return pytest.raises(error, match=rf"^(?!.*\n).*{message}.*\.$")


NO_MODELS = {
    "nothing": (lambda: None, "found a builtins.NoneType"),
    "name": (lambda: "nin", "found a builtins.str"),
    "subclass": (_Subclassed, "is not a Functional model: build it with"),
    "layer": (lambda: keras.layers.Dense(3), "is not a Functional model"),
    "network": (
        lambda: inference_model(harness.tiny_nin()),
        r"pass its `\.model`",
    ),
}


@pytest.mark.parametrize("given", NO_MODELS)
def test_what_is_no_model_to_train(twin, given):
    make, message = NO_MODELS[given]
    with _told(errors.ModelError, message):
        qgen_tf.QATModel(make())
    if given != "nothing":
        with _told(errors.ModelError, message):
            qgen_tf.QATModel(twin, teacher=make())


def test_a_student_of_two_outputs(model):
    two = keras.Model(model.input, [model.output, model.output])
    with _told(errors.ModelError, "has 2 outputs: a teacher has one"):
        qgen_tf.QATModel(two, teacher=two)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("distillation", ["a", None, [0.5], math.nan, 1.5, True]),
        ("temperature", ["a", None, math.inf, math.nan, 0]),
        ("dampening", ["a", None, [1], math.inf, math.nan, -1]),
    ],
)
def test_settings_of_the_loss(model, twin, field, values):
    for value in values:
        with _told(errors.ConfigError, f"{field} is .*: it "):
            qgen_tf.QATModel(twin, teacher=model, **{field: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", 10), "peak is 'a'"),
        ((-0.1, 10), "peak is -0.1"),
        ((math.nan, 10), "peak is nan"),
        ((0.1, "a"), "steps is 'a'"),
        ((0.1, 0), "steps is 0"),
        ((0.1, None), "steps is None"),
    ],
)
def test_a_rise_that_is_none(arguments, message):
    with _told(errors.ConfigError, f"{message}: it must be a number"):
        qgen_tf.CosineRise(*arguments)


@pytest.mark.parametrize("given", [None, 3, b"runs", ["runs"]])
def test_what_is_no_path(given):
    for function in (
        qgen_tf.load_model,
        RunDirectory,
        lambda workdir: run_path(workdir, tiny.config()),
    ):
        with _told(errors.ConfigError, "has (path|workdir)=.*: write a path"):
            function(given)


@pytest.mark.parametrize("given", [None, "digits.py", {}])
def test_what_is_no_config(tmp_path, given):
    for function in (
        training.float_config,
        training.label,
        lambda config: training.with_bits(config, 4, 4),
        lambda config: RunDirectory.create(tmp_path, config),
    ):
        with _told(errors.ConfigError, "has config=.*: write a config, such"):
            function(given)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("rate", ["a", None, math.nan, math.inf, 0, -1.0])
def test_learning_rates(rate):
    settings = tiny.config().training
    with _told(errors.ConfigError, "learning_rate is .*: it must"):
        optimizers.build(settings, learning_rate=rate, steps=5, warmup_steps=1)


@pytest.mark.parametrize("decay", [math.nan, math.inf, -1.0])
def test_weight_decays(decay):
    settings = tiny.config(weight_decay=decay).training
    with _told(errors.ConfigError, "weight_decay is .*: it must"):
        optimizers.build(settings, learning_rate=1.0, steps=5, warmup_steps=1)


def test_numbers_of_numpy_are_numbers():
    rise = qgen_tf.CosineRise(np.float32(0.5), np.int64(4))
    assert [float(rise(step)) for step in (0, 2, 4)] == [0.0, 0.25, 0.5]
