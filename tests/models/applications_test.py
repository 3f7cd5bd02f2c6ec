"""Networks of tf_keras.applications, behind our own normalization."""

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.data import preprocessing
from qgen_tf.models import applications, mobilenet

_SHAPE = (32, 32, 3)
_PREPROCESS = {
    "EfficientNetB0": lambda pixels: pixels,  # the model has its own
    "ResNet50": keras.applications.resnet50.preprocess_input,
    "MobileNetV2": keras.applications.mobilenet_v2.preprocess_input,
}


def _model(name, classes=5):
    if name == "mobilenet_v2":
        return mobilenet.mobilenet_v2(_SHAPE, classes, stem="imagenet")
    return getattr(applications, name)(_SHAPE, classes)


@pytest.fixture
def published(monkeypatch):
    """Stands in for the download; returns what was downloaded last."""
    downloaded = []

    def stand_in(name):
        build = getattr(keras.applications, name)

        def application(weights, **arguments):
            if weights is None:
                return build(weights=None, **arguments)
            model = build(weights=None, input_shape=_SHAPE, classes=5)
            _train(model, name)
            downloaded.append(model)
            return model

        return application

    for weights in applications.PUBLISHED.values():
        monkeypatch.setattr(
            keras.applications,
            weights.application,
            stand_in(weights.application),
        )
    return downloaded


def _train(model, name):
    """Sets statistics and what is zero at first, so that images matter."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            layer.beta.assign(generator.normal(0, 0.1, layer.beta.shape))
        if isinstance(layer, keras.layers.Normalization):
            mean, _ = preprocessing.NORMALIZATIONS["imagenet"]
            layer.mean = np.reshape(np.float32(mean), [1, 1, 1, 3])
            layer.variance = np.float32([[[[0.2, 0.3, 0.4]]]])
    model(_PREPROCESS[name](_pixels()), training=True)


def _pixels():
    """Returns images of different colors and noise."""
    generator = np.random.default_rng(1)
    images = generator.uniform(0, 200, (8, 1, 1, 3))
    images = images + generator.uniform(0, 55, (8, *_SHAPE))
    return images.astype(np.float32)


@pytest.mark.parametrize("name", applications.PUBLISHED)
def test_loaded_models_compute_what_the_published_ones_do(name, published):
    model = _model(name)
    applications.load_imagenet(model)
    (whole,) = published
    weights = applications.PUBLISHED[name]
    normalize = preprocessing.normalizer("x", weights.normalization)
    logits = model(normalize(_pixels()))
    expected = whole(_PREPROCESS[weights.application](_pixels())).numpy()
    got = keras.activations.softmax(logits).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05  # images make a difference


def test_another_number_of_classes_keeps_the_last_layer(published):
    model = _model("mobilenet_v2", classes=3)
    before = model.layers[-1].get_weights()
    applications.load_imagenet(model)
    after = model.layers[-1].get_weights()
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        model.get_layer("stem_conv").kernel,
        published[0].get_layer("Conv1").kernel,
    )


def test_models_without_published_weights(published):
    model = keras.Sequential(name="nin")
    with pytest.raises(errors.ConfigError, match="no weights for 'nin': give"):
        applications.load_imagenet(model)
    thin = mobilenet.mobilenet_v2(_SHAPE, 5, stem="imagenet", alpha=0.5)
    with pytest.raises(errors.ConfigError, match="'mobilenet_v2' are for its"):
        applications.load_imagenet(thin)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def offline(weights):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    message = r"'mobilenet_v2' cannot be downloaded \(URL fetch failure\): copy"
    with pytest.raises(errors.DataError, match=message):
        applications.load_imagenet(_model("mobilenet_v2"))


def test_efficientnet():
    model = applications.efficientnet_b0(_SHAPE, 5, drop_path=0.16)
    assert model.name == "efficientnet_b0"
    assert model.input.name == "image"
    assert model.layers[-1].activation is keras.activations.linear
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Rescaling", "Normalization", "TFOpLambda"}
    # 5,288,548 with 1,000 classes (table 1 of Tan and Le 2019 has 5.3M)
    weights = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert weights == 5_288_548 - 995 * (1280 + 1)
    rates = [
        layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout) and layer.noise_shape
    ]
    residual_blocks = (2, 4, 6, 7, 9, 10, 12, 13, 14)  # of 16, counted from 0
    np.testing.assert_allclose(rates, 0.01 * np.array(residual_blocks))
