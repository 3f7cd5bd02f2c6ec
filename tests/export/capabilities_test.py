"""What the runtime is found to do with operators of one kind."""

import numpy as np
import pytest

from export import capabilities, operator_file, packing, tflite, weights
from export.lane import KERNELS
from export.model_file import parse
from export.sandbox import Sandbox
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme
from tests.export.files import deployed, stored

layers = keras.layers


def _found():
    return {
        (one.operator, one.num_bits, one.kernels): one
        for one in capabilities.capabilities()
    }


def test_every_operator_storage_and_kernel_is_tried_once():
    assert len(_found()) == len(capabilities.capabilities()) == 4 * 3 * 3


@pytest.mark.parametrize("operator", operator_file.OPERATORS)
def test_eight_bits_run_everywhere(operator):
    for kernels in KERNELS:
        assert _found()[operator, 8, kernels].is_usable
    assert _found()[operator, 8, "xnnpack"].verdict == "exact"


@pytest.mark.parametrize("operator", operator_file.OPERATORS)
@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_versions_are_those_of_what_runs(operator, kernels):
    """What is packed into 4 bits runs as it is, and 2 bits where they do."""
    usable = {
        num_bits
        for num_bits in (2, 4)
        if _found()[operator, num_bits, kernels].is_usable
    }
    assert usable == set(weights.LAYOUTS[operator].versions)


def test_two_bits_of_a_convolution_are_refused():
    one = _found()["CONV_2D", 2, "xnnpack"]
    assert one.verdict == "refused" and one.steps_off is None
    assert "filter->type == kTfLiteInt8" in one.refusal


def test_table():
    lines = capabilities.table().splitlines()
    assert len(lines) == 2 + 12
    assert lines[0] == (
        "| operator | bits of a weight | xnnpack | builtin | reference |"
    )
    assert lines[4] == "| CONV_2D | 2 | refused | refused | refused |"
    assert "| FULLY_CONNECTED | 2 | exact | 1 step off | exact |" in lines


def test_wrong_integers_are_noticed(monkeypatch):
    """Such as those of a runtime that has the first level at the top."""

    def reversed_bytes(levels, num_bits):
        groups = levels.reshape(-1, 8 // num_bits)[:, ::-1]
        return packing.packed(groups, num_bits)

    monkeypatch.setattr(operator_file, "packed", reversed_bytes)
    with Sandbox() as sandbox:
        one = capabilities._probed("FULLY_CONNECTED", 2, "xnnpack", sandbox)
    assert one.verdict == "wrong" and not one.is_usable
    assert one.steps_off > 20


def test_expected_outputs():
    """The sums of a dense layer, by hand."""
    file = operator_file.operator_file("FULLY_CONNECTED", 2, seed=3)
    (weight,) = weights.read_weights(parse(file.content))
    sums = file.inputs @ weight.values.astype(np.float64) + weight.bias
    wanted = np.clip(np.rint(sums * np.float64(weight.scales)), -128, 127)
    np.testing.assert_array_equal(file.outputs, wanted)
    assert weight.num_bits == 2 and set(np.unique(weight.values)) == {-1, 0, 1}


def _convolution():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    x = layers.Conv2D(4, 3, name="inner")(x)
    x = layers.Dense(8, name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def test_a_file_that_cannot_run_as_it_is():
    content = tflite.convert(deployed(_convolution(), BitScheme(2, 8)))
    for storage in ("int8", "int4"):
        capabilities.require_runnable(stored(content, storage))
    narrow = stored(content, "int2")
    with pytest.raises(
        errors.ExportError,
        match="^layer 'inner': the runtime's xnnpack kernels have no CONV_2D "
        'for weights of 2 bits; convert with storage="int8", or expand',
    ):
        capabilities.require_runnable(narrow)
    capabilities.require_runnable(weights.expand(narrow))
