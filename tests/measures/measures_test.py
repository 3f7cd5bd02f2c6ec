"""What all measures have in common, on a network with all that is deployed."""

import dataclasses
import inspect
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf.compat import keras
from qgen_tf.measures import MEASURES, MeasureResult
from qgen_tf.quantization import BitScheme, calibrate, quantize_model


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


@pytest.fixture(scope="module", params=[None, BitScheme(4, 8)])
def model(request):
    if request.param is None:
        return _model()
    quantized = quantize_model(_model(), request.param)
    calibrate(quantized, _dataset())
    return quantized


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


@pytest.mark.parametrize("point", ["deployed", "latent"])
@pytest.mark.parametrize("name", MEASURES)
def test_a_result_can_be_repeated_from_its_record(name, point, model):
    before = [value.tobytes() for value in model.get_weights()]
    result = MEASURES[name](
        model, _dataset(), point=point, seed=3, num_samples=2
    )
    assert [value.tobytes() for value in model.get_weights()] == before
    assert result.name == name
    assert math.isfinite(result.value)
    assert math.isfinite(result.standard_error)
    text = json.dumps(dataclasses.asdict(result), allow_nan=False)
    record = MeasureResult(**json.loads(text))
    assert record == result
    # every setting is an argument, or was found with the value
    arguments = set(inspect.signature(MEASURES[name]).parameters)
    assert arguments - set(record.settings) == {
        "model",
        "dataset",
        "loss_fn",
        "variables",
    }
    again = {
        key: record.settings[key] for key in arguments & {*record.settings}
    }
    assert MEASURES[name](model, _dataset(), **again) == result
