"""The table of what was quantized."""

import numpy as np
import pandas as pd

import qgen_tf
from qgen_tf.compat import keras
from tests import harness

layers = keras.layers


def _model():
    inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, name="first")(inputs)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(6, 3, name="second")(x)
    x = layers.Activation("softplus", name="strange")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def test_every_layer_has_a_row():
    model = qgen_tf.quantize_model(_model(), qgen_tf.BitScheme(2, 4))
    report = qgen_tf.quantization_report(model).set_index("layer")
    assert list(report.index) == [
        *("image", "image_input", "first", "relu", "second", "strange"),
        *("strange_output", "flat", "logits"),
    ]
    bits = report["weight_bits"].dropna()
    assert bits.to_dict() == {"first": 8, "second": 2, "logits": 8}
    assert report["activation_bits"].dropna().to_dict() == {
        **{"image_input": 8, "relu": 4, "second": 4, "logits": 8},
        "strange_output": 8,
    }
    assert report["activation_step"].isna().all()  # not calibrated
    assert report["note"]["strange"] == "left alone: Activation is not known"
    assert report["levels_used"]["second"] == 3


def test_steps_are_those_of_the_model():
    model = harness.calibrated(harness.tiny_nin, harness.W4A4)
    report = qgen_tf.quantization_report(model)
    known = report["activation_bits"].notna()
    assert (report["activation_step"][known] > 0).all()
    steps = np.concatenate(
        [values.reshape(-1) for values in harness.steps_of(model).values()]
    )
    for step in report["activation_step"][known]:
        assert np.abs(steps / step - 1).min() < 1e-6
    used = report["levels_used"].dropna()
    limits = 2 ** report["weight_bits"].dropna() - 1
    assert (used <= limits).all() and len(used) == len(limits)


def test_overrides_are_named():
    scheme = qgen_tf.BitScheme(2, 4, overrides=(("sec*", 5, 6),))
    model = qgen_tf.quantize_model(_model(), scheme)
    report = qgen_tf.quantization_report(model).set_index("layer")
    assert report["weight_bits"]["second"] == 5
    named = report["note"].str.contains("bits by override 'sec*'", regex=False)
    assert list(report.index[named]) == ["second"]


def test_the_range_is_that_of_the_levels():
    model = harness.calibrated(harness.tiny_nin, harness.W4A4)
    report = qgen_tf.quantization_report(model).set_index("layer")
    row = report.loc["block0_mix0_relu"]
    assert row["low"] == 0.0
    np.testing.assert_allclose(row["high"], 15 * row["activation_step"])
    row = report.loc["logits"]
    np.testing.assert_allclose(row["low"], -128 * row["activation_step"])
    np.testing.assert_allclose(row["high"], 127 * row["activation_step"])


def test_a_float_model_has_nothing_quantized():
    report = qgen_tf.quantization_report(_model())
    assert report[["weight_bits", "activation_bits"]].isna().all().all()
    assert pd.notna(report["note"]).all()
