"""What quantizers share: what they have seen, and what they refuse."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import QUANTIZERS, quantizers
from qgen_tf.quantization.quantize_configs import LayerQuantizeConfig

layers = keras.layers


def test_observer_gathers_the_statistics_of_all_batches():
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    observer = quantizers.Observer()
    for batch in (values[:2], values[2:]):
        observer.update(batch)
    assert observer.count == 35
    assert observer.max_abs == np.abs(values).max()
    assert observer.minimum == values.min()
    assert observer.maximum == values.max()
    np.testing.assert_array_equal(observer.sample, values.reshape(-1))
    np.testing.assert_allclose(
        observer.sum_abs, np.abs(values).sum(dtype=np.float64)
    )


@pytest.mark.parametrize("name", QUANTIZERS)
def test_activations_without_a_step_size_are_refused(name):
    quantizer = QUANTIZERS[name].activations(4, signed=True)
    wrapper = tfmot.quantization.keras.QuantizeWrapperV2(
        layers.Activation("linear", name="identity"),
        LayerQuantizeConfig(output_quantizer=quantizer),
    )
    with pytest.raises(errors.ModelError, match="identity.*call.*calibrate"):
        wrapper(tf.ones([2, 3]))
    with quantizers.allow_uncalibrated():
        wrapper(tf.ones([2, 3]))
    with pytest.raises(errors.ModelError, match="calibrate"):
        wrapper(tf.ones([2, 3]))
    assert np.isnan(quantizer.grid(wrapper._output_quantizer_vars)[0])


def test_a_sample_is_bounded():
    observer = quantizers.Observer()
    for _ in range(3):
        observer.update(np.arange(100_000, dtype=np.float32))
    assert 3 * 4096 <= observer.sample.size <= 3 * 2 * 4096
    assert observer.sample.max() > 99_000


def test_a_fixed_grid_does_not_depend_on_data():
    quantizer = quantizers.FixedActivationQuantizer(
        8, step_size=1 / 256, zero_point=0
    )
    values = tf.constant([[-0.5, 0.0, 0.3, 0.9999, 5.0]])
    found = quantizer(values, True, {})
    wanted = np.float32([[0, 0, 77, 255, 255]]) / 256
    np.testing.assert_array_equal(found, wanted)
    assert quantizer.grid({}) == (1 / 256, 0)
