"""Every quantizer at every number of bits on every layer, from end to end."""

import itertools

import numpy as np
import pytest

from export import flatbuffer, tflite
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    QUANTIZERS,
    BitScheme,
    calibrate,
    inference_model,
    quantization_report,
    quantize_model,
)
from qgen_tf.quantization.quantize import wrappers
from tests import harness
from tests.layer_nets import NETS

pytestmark = pytest.mark.slow
_BITS = range(1, 9)
EVERY = [*itertools.product(QUANTIZERS, _BITS, NETS)]
# each quantizer at each number of bits once, each net at least once
_NET = itertools.cycle(NETS)
COVER = [(*pair, next(_NET)) for pair in itertools.product(QUANTIZERS, _BITS)]
# each quantizer at every sixth number of bits, the next at the one before it
SIXTH = [
    combination
    for index, combination in enumerate(COVER)
    if sum(divmod(index, len(_BITS))) % 6 == 0
]


def pytest_generate_tests(metafunc):
    is_full = metafunc.config.getoption("full")
    metafunc.parametrize(
        ("quantizer", "bits", "net"), EVERY if is_full else SIXTH
    )


def _float_model(net, seed):
    keras.utils.set_random_seed(seed)
    return harness.randomize_norms(NETS[net](), seed)


def _train_a_step(model):
    images, labels = (part[:64] for part in harness.digits())
    before = [value.copy() for value in model.get_weights()]
    model.compile(keras.optimizers.SGD(1e-3), harness.loss())
    assert np.isfinite(model.train_on_batch(images, labels))
    after = model.get_weights()
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, after, strict=True)
    ]
    assert sum(changed) > 2
    assert all(np.isfinite(value).all() for value in after)


def test_from_float_to_file(quantizer, bits, net, tmp_path):
    scheme = BitScheme(bits, max(bits, 2), quantizer=quantizer)
    twin = quantize_model(_float_model(net, seed=0), scheme)
    calibrate(twin, harness.calibration_data())
    _train_a_step(twin)

    report = quantization_report(twin)
    weights = report[report["weight_bits"].notna()]
    assert len(weights) >= 2
    assert set(weights["weight_bits"]) <= {bits, 8}
    assert (weights["levels_used"] <= 2 ** weights["weight_bits"]).all()

    for wrapper in wrappers(twin):
        config = wrapper.quantize_config.get_config()
        again = type(wrapper.quantize_config).from_config(config)
        assert again.get_config() == config

    twin.save_weights(tmp_path / "twin.weights.h5")
    again = quantize_model(_float_model(net, seed=1), scheme)
    again.load_weights(tmp_path / "twin.weights.h5")
    images = harness.test_images()[:64]
    np.testing.assert_array_equal(twin(images), again(images))

    network = inference_model(twin)
    content = tflite.convert(network)
    flatbuffer.check(network, content)
