"""Margins by hand, and what their percentile is worth."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.measures.losses import CrossEntropy
from qgen_tf.measures.margins import margin_percentile, margins
from qgen_tf.quantization import BitScheme, quantize_model

LOGITS = np.array([[3, 1, -2], [0, 5, 4], [2, 2, 1], [-1, 6, 0]], np.float32)
LABELS = np.array([0, 2, 1, 2])
# 3 - 1, 4 - 5, 2 - 2, 0 - 6
MARGINS = [2.0, -1.0, 0.0, -6.0]


def _identity(features, layer=None):
    """A network that returns its input, or `layer` of it."""
    inputs = keras.Input([features])
    x = keras.layers.Dense(features, use_bias=False, name="dense")(inputs)
    model = keras.Model(inputs, layer(x) if layer else x, name="net")
    model.get_layer("dense").set_weights([np.eye(features)])
    return model


def _data(outputs, labels, batch_size=3):
    data = tf.data.Dataset.from_tensor_slices((outputs, labels))
    return data.batch(batch_size).cache()


def test_by_hand():
    found = margins(_identity(3), _data(LOGITS, LABELS))
    np.testing.assert_array_equal(found, MARGINS)


def test_probabilities_have_the_margins_of_their_logits():
    found = margins(
        _identity(3, keras.layers.Softmax()),
        _data(LOGITS, LABELS),
        CrossEntropy(from_logits=False),
    )
    np.testing.assert_allclose(found, MARGINS, atol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
def test_one_output_is_the_second_of_two_classes(from_logits):
    logits = np.array([[2.0], [2.0], [-3.0], [0.5]], np.float32)
    labels = np.array([1, 0, 0, 1])
    layer = None if from_logits else keras.layers.Activation("sigmoid")
    found = margins(
        _identity(1, layer),
        _data(logits, labels),
        CrossEntropy(from_logits=from_logits),
    )
    np.testing.assert_allclose(found, [2, -2, 3, 0.5], atol=1e-5)


def test_the_percentile_and_what_goes_with_it():
    result = margin_percentile(
        _identity(3), _data(LOGITS, LABELS), percentile=50.0
    )
    assert result.value == -0.5  # between -1 and 0
    assert result.details == {"median": -0.5, "share_positive": 0.25}
    assert result.unit == "logits"
    assert result.settings["percentile"] == 50.0
    default = margin_percentile(_identity(3), _data(LOGITS, LABELS))
    assert default.value == pytest.approx(np.percentile(MARGINS, 10))


def test_the_standard_error_is_the_spread_over_samples():
    generator = np.random.default_rng(0)
    # one class, whose logit is the margin; the other's is zero
    samples = generator.normal(size=(40, 500, 1)).astype(np.float32)
    model = _identity(1)
    results = [
        margin_percentile(model, _data(sample, np.ones(500, np.int64), 500))
        for sample in samples
    ]
    spread = np.std([result.value for result in results], ddof=1)
    error = np.mean([result.standard_error for result in results])
    # 40 samples know the spread to 11 %
    assert error == pytest.approx(spread, rel=0.35)
    quantile = scipy.stats.norm.ppf(0.1)
    truth = np.sqrt(0.1 * 0.9 / 500) / scipy.stats.norm.pdf(quantile)
    assert error == pytest.approx(truth, rel=0.15)
    mean = np.mean([result.value for result in results])
    assert abs(mean - quantile) < 4 * spread / 40**0.5


def test_points_of_a_2_bit_network():
    network = quantize_model(_identity(3), BitScheme(2, 32, 2))
    before = [value.tobytes() for value in network.get_weights()]
    values = {
        point: margin_percentile(
            network, _data(LOGITS, LABELS), point=point
        ).value
        for point in ("deployed", "latent")
    }
    # it rounds the latent weights as the deployed network has them
    assert values["deployed"] == pytest.approx(values["latent"], rel=1e-5)
    assert [value.tobytes() for value in network.get_weights()] == before


@pytest.mark.parametrize("percentile", [0.0, 100.0, float("nan")])
def test_a_percentile_out_of_range(percentile):
    with pytest.raises(errors.ConfigError, match=r"in \(0, 100\)"):
        margin_percentile(
            _identity(3), _data(LOGITS, LABELS), percentile=percentile
        )


def test_data_points_and_outputs_that_cannot_be():
    model, data = _identity(3), _data(LOGITS, LABELS)
    with pytest.raises(errors.DataError, match="empty"):
        margin_percentile(model, data.take(0))
    with pytest.raises(errors.ConfigError, match="'dequantized'"):
        margin_percentile(model, data, point="dequantized")
    with pytest.raises(errors.ConfigError, match="from_logits=False"):
        margin_percentile(_identity(3, keras.layers.Softmax()), data)
    model.get_layer("dense").kernel.assign(np.full((3, 3), np.inf))
    with pytest.raises(errors.ModelError, match="'net' are not finite"):
        margin_percentile(model, data)
