import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgen_tf.compat import keras
from qgen_tf.quantization.grids import ActivationGrid
from qgen_tf.quantization.layer_norm import DeployedLayerNorm
from qgen_tf.quantization.norm_grid import NormGrid
from qgen_tf.quantization.runtime_layers import call_of

layers = keras.layers
_MOST = 32767.5


def _grid(input_bits=8, input_step_size=0.1, channels=16, epsilon=1e-6):
    """Factors of 2, 2, -2, 0 and so on."""
    return NormGrid(
        input_step_size=input_step_size,
        input_levels=2**input_bits,
        output_step_size=0.05,
        factor_levels=np.resize(
            np.array([127, 127, -127, 0], np.int8), channels
        ),
        factor_step_sizes=np.full(channels, 2.0 / 127, np.float32),
        beta_levels=np.arange(channels),
        epsilon=epsilon,
    )


def test_weights_are_levels_times_steps():
    grid = _grid()
    # the factors hold the root of the number of channels
    wanted = [0.5, 0.5, -0.5, 0.0] * 4
    np.testing.assert_allclose(grid.gamma, wanted, rtol=1e-6)
    # a step of the outputs is 256 of beta
    np.testing.assert_allclose(grid.beta, 0.05 / 256 * np.arange(16), rtol=1e-6)


@settings(deadline=None, max_examples=200)
@given(
    bits=st.integers(2, 8),
    seed=st.integers(0, 2**16),
    channels=st.integers(2, 64),
    step_size=st.floats(1e-4, 10.0),
)
def test_nothing_saturates(bits, seed, channels, step_size):
    grid = _grid(bits, step_size, channels)
    generator = np.random.default_rng(seed)
    # of any skewness: from all levels, or from the ends
    levels = generator.integers(0, 2**bits, channels)
    if seed % 2:
        share = generator.random()
        levels = (2**bits - 1) * (generator.random(channels) < share)
    values = levels * step_size
    centered = values - values.mean()
    power = np.sum(centered**2)
    assert np.abs(values).max() <= _MOST * grid.centered_step_size
    assert np.abs(centered).max() <= _MOST * grid.centered_step_size
    assert power <= _MOST * grid.power_step_sizes[0]
    smallest = max((2**bits - 1) * step_size / 255, np.sqrt(grid.epsilon))
    if np.sqrt(power / channels) >= smallest:
        inverse = 1.0 / np.sqrt(power)
        assert inverse <= _MOST * grid.inverse_step_size
        length_of_epsilon = np.sqrt(channels * grid.epsilon) * inverse
        assert length_of_epsilon <= _MOST * grid.unit_step_size
        # a first try that is off by 3 percent, or 20 percent too small
        for length in (0.8, 1.0, 1.03):
            assert np.abs(centered).max() * inverse * length <= (
                _MOST * grid.unit_step_size
            )
            square = length**2 * (1.0 + length_of_epsilon**2)
            assert square <= _MOST * grid.unit_power_step_size
            assert square**-0.5 <= _MOST * grid.correction_step_size
    largest = 127.0 * grid.factor_step_sizes.max() * _MOST
    assert largest * grid.correction_step_size <= (
        1.001 * _MOST * grid.product_step_size
    )


@pytest.mark.parametrize(
    ("bits", "channels", "finer"),
    [(8, 96, 96), (8, 32, 128), (8, 129, 128), (4, 96, 2016), (8, 24, 120)],
)
def test_means_are_whole_numbers_of_finer_steps(bits, channels, finer):
    grid = _grid(bits, 0.5, channels)
    assert 0.5 / grid.centered_step_size == finer
    assert finer % channels == 0 or channels > finer


def test_the_length_of_epsilon():
    """The inverse ends where the length of epsilon is one."""
    grid = _grid(epsilon=1.0)
    largest = 32767 * grid.inverse_step_size
    np.testing.assert_allclose(largest, 1.0 / np.sqrt(16), rtol=1e-6)
    factor = grid.epsilon_levels * grid.epsilon_step_size
    np.testing.assert_allclose(largest * factor, 1.0, rtol=1e-6)
    # or where a standard deviation is one step
    largest = 32767 * _grid(epsilon=0.0).inverse_step_size
    np.testing.assert_allclose(largest, 1.0 / 0.1 / np.sqrt(16), rtol=1e-6)
    assert _grid(epsilon=0.0).epsilon_levels == 0
    assert _grid(epsilon=0.0).epsilon_step_size == 1.0


def _call(layer, input_grid, output_grid):
    inputs = layers.Input((3, 4))
    x = (
        layers.Dropout(0.1)(inputs)
        if input_grid is None
        else input_grid(inputs)
    )
    if not layer.built:
        layer(inputs)
    return inputs, call_of(layer)(layer, output_grid, x)


@pytest.mark.parametrize("scale", [True, False])
def test_between_grids_beta_is_rounded(scale):
    layer = layers.LayerNormalization(scale=scale, name="norm", epsilon=1e-3)
    layer(layers.Input((3, 4)))
    gamma = np.array([0.5, -2.0, 0.0, 1.0])
    beta = np.array([0.3, 0.0, -1.0, 0.1])
    layer.set_weights([gamma, beta] if scale else [beta])
    inputs, outputs = _call(
        layer, ActivationGrid(0.1, 8, 128), ActivationGrid(0.04, 8, 128)
    )
    deployed = outputs.node.layer
    assert type(deployed) is DeployedLayerNorm and deployed.name == "norm"
    wanted = gamma if scale else np.ones(4)
    np.testing.assert_allclose(deployed.gamma, wanted, rtol=1e-6)
    np.testing.assert_allclose(deployed.beta, beta, atol=0.04 / 256 * 1.001)
    assert (deployed.grid.beta_levels % 2 == 1).all()
    np.testing.assert_array_equal(deployed.gamma, deployed.grid.gamma)
    # the same function otherwise, on inputs that are on their grid
    model = keras.Model(inputs, outputs)
    values = np.random.default_rng(0).integers(-128, 128, (2, 3, 4)) * 0.1
    np.testing.assert_allclose(
        model(values.astype(np.float32)),
        layer(values.astype(np.float32)),
        atol=2e-3,
    )


@pytest.mark.parametrize(
    ("input_grid", "output_grid"),
    [(None, ActivationGrid(0.1, 8, 128)), (ActivationGrid(0.1, 8, 128), None)],
)
def test_a_float_end_leaves_it_float(input_grid, output_grid):
    layer = layers.LayerNormalization(name="norm")
    _, outputs = _call(layer, input_grid, output_grid)
    assert type(outputs.node.layer) is layers.LayerNormalization
