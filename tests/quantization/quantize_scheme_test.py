import dataclasses
import math

import pytest

from qgen_tf import errors
from qgen_tf.quantization import FLOAT_BITS, BitScheme
from qgen_tf.quantization.quantize_scheme import ExplicitScheme


@pytest.mark.parametrize(
    ("scheme", "weights", "activations"),
    [
        # (inner, first and last)
        (BitScheme(), (8, 8), (8, 8)),
        (BitScheme(2, 4), (2, 8), (4, 8)),
        (BitScheme(3, 5, first_last_bits=6), (3, 6), (5, 6)),
        (BitScheme(4, FLOAT_BITS), (4, 8), (32, 32)),
        (BitScheme(FLOAT_BITS, 4), (32, 32), (4, 8)),
    ],
)
def test_bits(scheme, weights, activations):
    ends = (False, True)
    assert weights == tuple(
        scheme.weight_bits_of("conv", first_or_last=end) for end in ends
    )
    assert activations == tuple(
        scheme.activation_bits_of(["conv"], first_or_last=end) for end in ends
    )


def test_the_first_override_that_matches_decides():
    scheme = BitScheme(
        4,
        4,
        overrides=[["head", 8, 8], ("h*", 3, None), ("?ody_*", None, 2)],
    )
    found = {
        name: (
            scheme.weight_bits_of(name, first_or_last=True),
            scheme.activation_bits_of([name, "other"], first_or_last=False),
        )
        for name in ("head", "hat", "body_1", "Head", "body")
    }
    assert found == {
        "head": (8, 8),
        "hat": (3, 4),
        "body_1": (8, 2),
        "Head": (8, 4),
        "body": (8, 4),
    }
    assert hash(scheme) == hash(dataclasses.replace(scheme))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_bits": 0}, "weight_bits is 0: choose 1 to 8 bits, or 32"),
        ({"weight_bits": True}, "weight_bits is True"),
        ({"activation_bits": 1}, "is 1: choose 2 to 8 bits, or 32"),
        ({"activation_bits": 16}, "activation_bits is 16: choose"),
        ({"weight_bits": None}, "weight_bits is None"),
        ({"weight_bits": 4.5}, "weight_bits is 4.5"),
        ({"first_last_bits": 32}, "first_last_bits is 32: choose 2 to 8 bits."),
        (
            {"weight_bits": 32, "activation_bits": 32},
            "both 32: nothing would be quantized",
        ),
        ({"quantizer": "lqs"}, "'lqs' is unknown: choose one of \\['lsq', "),
        ({"step_learning_rate": 0.0}, "is 0.0: it must be a number above 0"),
        (
            {"step_learning_rate": math.nan},
            "is nan: it must be a number above 0",
        ),
        ({"overrides": (("a", 4),)}, "has \\('a', 4\\): write \\(pattern"),
        ({"overrides": ("abc",)}, "overrides has 'abc': write"),
        ({"overrides": (("a", 9, 8),)}, "weight_bits of override 'a' is 9"),
        ({"overrides": (("a", 8, 1),)}, "activation_bits of override 'a'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(errors.ConfigError, match=message):
        BitScheme(**arguments)


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BitScheme().weight_bits = 2


def test_nothing_is_quantized_without_an_annotation():
    registry = ExplicitScheme().get_quantize_registry()
    assert not registry.supports(None)
    transform = ExplicitScheme().get_layout_transformer()
    assert transform.apply("model", "map") == ("model", "map")
