"""What all measures have in common, on a network with all that is deployed."""

import dataclasses
import functools
import inspect
import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.config import default_config
from qgen_tf.measures import MEASURES, MeasureResult
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.quantize import wrappers

_POINTS = ("deployed", "latent")
_SCHEMES = (None, BitScheme(4, 8))
pytestmark = pytest.mark.slow


def _dataset():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(20, 8, 8, 3)).astype(np.float32)
    labels = generator.integers(4, size=20)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.batch(8).cache()


def _model():
    inputs = keras.Input([8, 8, 3])
    x = keras.layers.Conv2D(6, 3, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(6, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def _built(scheme, seed):
    keras.utils.set_random_seed(seed)
    if scheme is None:
        return _model()
    quantized = quantize_model(_model(), scheme)
    calibrate(quantized, _dataset())
    return quantized


@functools.cache
def _models(scheme):
    """A model, its deployed network, and a model of its initial weights."""
    model = _built(scheme, seed=1)
    return model, inference_model(model), _built(scheme, seed=2)


# of searches and samples: enough to run, not to be right
_CHEAP = {
    "num_samples": 2,
    "max_samples": 2,
    "num_probes": 2,
    "num_steps": 2,
    "num_restarts": 1,
    "count": 1,
}


def _arguments(name, model, initial):
    """What a measure is given beside its defaults."""
    parameters = inspect.signature(MEASURES[name]).parameters
    known = {**_CHEAP, "initial": initial}
    if not wrappers(model):
        known["num_bits"] = 4
    if "_m_" in name:
        known["m"] = 10
    return {key: known[key] for key in known if key in parameters}


def test_settings_in_a_config_are_arguments():
    for name, settings in default_config().measures.items():
        if hasattr(settings, "items"):
            parameters = inspect.signature(MEASURES[name]).parameters
            assert {*settings} <= {*parameters}


@pytest.mark.parametrize("name", MEASURES)
def test_arguments_are_uniform(name):
    parameters = inspect.signature(MEASURES[name]).parameters
    assert list(parameters)[:3] == ["model", "dataset", "loss_fn"]
    for keyword in ("point", "variables", "seed"):
        assert parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["point"].default == "deployed"
    assert parameters["seed"].default == 0
    for parameter in list(parameters.values())[3:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty


def _cases():
    """Every measure at both points of both models: a quarter is quick."""
    for index, name in enumerate(MEASURES):
        places = itertools.product(_POINTS, _SCHEMES)
        for number, (point, scheme) in enumerate(places):
            marks = () if number == index % 4 else pytest.mark.full
            yield pytest.param(name, point, scheme, marks=marks)


@pytest.mark.parametrize(("name", "point", "scheme"), _cases())
def test_a_result_can_be_repeated_from_its_record(name, point, scheme):
    model, deployed, initial = _models(scheme)
    before = [value.tobytes() for value in model.get_weights()]
    dataset = _dataset()
    given = _arguments(name, model, initial)
    result = MEASURES[name](model, dataset, point=point, seed=3, **given)
    assert [value.tobytes() for value in model.get_weights()] == before
    assert result.name == name
    assert math.isfinite(result.value)
    assert math.isfinite(result.standard_error)
    text = json.dumps(dataclasses.asdict(result), allow_nan=False)
    record = MeasureResult(**json.loads(text))
    assert record == result
    # every setting is an argument, and all but objects are in the record
    arguments = set(inspect.signature(MEASURES[name]).parameters)
    assert arguments - set(record.settings) == arguments & {
        "model",
        "dataset",
        "loss_fn",
        "variables",
        "initial",
        "reference",
    }
    assert set(record.settings) <= arguments
    again = {**record.settings}
    if "initial" in given:
        again["initial"] = given["initial"]
    # the deployed network stands for the model, where no grid is made of it
    if point == "deployed" and "num_bits" not in given:
        model = deployed
    assert MEASURES[name](model, dataset, **again) == result
