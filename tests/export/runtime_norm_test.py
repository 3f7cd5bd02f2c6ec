import numpy as np
import pytest

from export import tflite
from export.divergence import explain
from export.runtime_norm import inverse_root_table, looked_up
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
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
