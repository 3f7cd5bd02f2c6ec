import numpy as np
import pytest

from export import tflite
from export.divergence import explain
from export.runtime_norm import RuntimeNorm
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from qgen_tf.quantization.norm_arithmetic import inverse_root_table, looked_up
from qgen_tf.quantization.norm_grid import NormGrid
from tests import harness
from tests.export import operators

layers = keras.layers


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_inverse_roots_are_the_runtimes(kernels):
    levels = np.arange(2**15, dtype=np.int16).reshape(1, -1)
    generator = np.random.default_rng(0)
    for step in np.exp(generator.uniform(-12.0, 3.0, 40)):
        output_step = 0.02 / np.sqrt(step) / 2**15
        found = operators.run(
            "RSQRT",
            [(levels, step, 0)],
            (levels.shape, np.int16, output_step, 0),
            version=3,
            kernels=kernels,
        )
        table = inverse_root_table(step, output_step)
        wanted = looked_up(table, levels.astype(np.int64))
        np.testing.assert_array_equal(found, wanted)


def test_the_table_meets_the_function_where_it_is_straight():
    table = inverse_root_table(1e-3, 1e-4)
    levels = np.array([20000, 25001, 30002, 32767])
    roots = 1e4 / np.sqrt(1e-3 * levels)
    np.testing.assert_allclose(looked_up(table, levels), roots, atol=1.0)


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("bits", [8, 4])
def test_is_what_the_file_computes(bits, kernels):
    keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(24, 3, padding="same", name="stem")(inputs)
    outputs = layers.LayerNormalization(name="norm")(x)
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(0)
    norm = model.get_layer("norm")
    norm.gamma.assign(generator.normal(1.0, 0.3, 24))
    norm.beta.assign(generator.normal(0.0, 0.3, 24))
    twin = quantize_model(model, BitScheme(8, bits, first_last_bits=8))
    calibrate(twin, harness.calibration_data())
    network = inference_model(twin)
    content = tflite.convert(network)
    rows = explain(network, content, harness.test_images(), kernels=kernels)
    found = {row.layer: row.max_steps for row in rows}
    assert found == {"stem_grid": 0.0, "norm_grid": 0.0}


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("channels", [24, 96, 384])
def test_few_levels_are_not_the_nearest(channels, epsilon):
    """The root of the number of channels is the largest of normalized ones."""
    generator = np.random.default_rng(0)
    step = 0.03
    biases = []
    for deviation in (2.0, 4.0, 10.0, 25.0, 50.0, 100.0):  # steps
        shape = (50_000 // channels, channels)
        levels = np.rint(deviation * generator.normal(size=shape))
        inputs = step * np.clip(levels, -128, 127)
        gamma = generator.normal(1.0, 0.3, channels)
        factors = gamma * np.sqrt(channels)
        grid = NormGrid(
            input_step_size=step,
            input_levels=256,
            output_step_size=step,
            factor_levels=(127 * np.sign(factors)).astype(np.int8),
            factor_step_sizes=np.float32(np.abs(factors) / 127),
            beta_levels=2 * generator.integers(-4000, 4000, channels) + 1,
            epsilon=epsilon,
        )
        layer = RuntimeNorm(grid, is_plain=False)
        centered = inputs - inputs.mean(-1, keepdims=True)
        variance = np.mean(centered**2, -1, keepdims=True)
        wanted = centered / np.sqrt(variance + epsilon) * gamma + grid.beta
        wanted = np.clip(np.rint(wanted / step), -128, 127)
        found = layer(np.float32(inputs)).numpy() / step
        off = np.clip(np.rint(found), -128, 127) - wanted
        assert np.abs(off).max() <= 1.0
        most = 1e-3 + 3e-4 * np.sqrt(channels)
        if channels > 128:  # whose means are rounded
            most += 0.1 / deviation
        assert np.mean(off != 0.0) < most
        biases.append(np.mean(off))
    assert np.abs(np.mean(biases)) < 1e-3


def test_vectors_that_hardly_differ():
    """Deviations of a step; below, one over them saturates."""
    one = np.zeros((1, 64), np.float32)
    one[0, :32] = 0.1
    grid = NormGrid(
        input_step_size=0.1,
        input_levels=256,
        output_step_size=0.05,
        factor_levels=np.full(64, 127, np.int8),
        factor_step_sizes=np.full(64, 8.0 / 127, np.float32),
        beta_levels=np.zeros(64, np.int64),
        epsilon=1e-6,
    )
    layer = RuntimeNorm(grid, is_plain=False)
    np.testing.assert_array_equal(layer(0.0 * one), 0.0 * one)
    # a standard deviation of half a step
    wanted = np.where(one, 1.0, -1.0)
    assert (np.sign(layer(one)) == wanted).all()
    np.testing.assert_allclose(layer(2.0 * one), wanted, rtol=1e-6)
