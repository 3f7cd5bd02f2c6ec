import numpy as np
import pytest

from export import tflite
from export.interpreter import Interpreter
from export.runtime_model import runtime_model
from qgen_tf.quantization import BitScheme, inference_model
from tests import harness


def _steps_off(model, content, kernels):
    interpreter = Interpreter(content, kernels=kernels)
    images = harness.test_images()
    found = interpreter.predict(images)
    wanted = model(images).numpy()
    off = np.rint(np.abs(found - wanted) / interpreter.output_step_size)
    return off, 100.0 * np.mean(found.argmax(1) == wanted.argmax(1))


def _cases():
    """Every network at all bits: a third of it is quick."""
    builds = (harness.tiny_nin, harness.residual, harness.mobile)
    for row, build in enumerate(builds):
        for column, bits in enumerate([(8, 8), (4, 4), (2, 2), (1, 8)]):
            marks = pytest.mark.full if (row + column) % 3 else ()
            name = f"{build.__name__}-{bits}"
            yield pytest.param(build, bits, id=name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "bits"), _cases())
def test_is_the_twin_of_the_file(build, bits):
    network = inference_model(
        harness.quantization_aware(build, BitScheme(*bits))
    )
    content = tflite.convert(network)
    twins = {
        kernels: runtime_model(network, kernels=kernels)
        for kernels in ("xnnpack", "reference")
    }
    for kernels, model in twins.items():
        off, agreement = _steps_off(model, content, kernels)
        assert off.max() <= 1
        assert off.mean() < 0.001
        assert agreement >= 99.7  # all of 450 examples but one
    # the two are not the same network
    off, _ = _steps_off(twins["xnnpack"], content, "reference")
    assert off.mean() > 0.01


def test_a_float_network_is_its_own_twin():
    network = inference_model(harness.tiny_nin())
    assert runtime_model(network) is network.model
