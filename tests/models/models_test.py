"""`models.build` and what all models have in common."""

import pytest

from qgen_tf import errors, models
from qgen_tf.compat import keras
from qgen_tf.quantization import graph


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_is_flat_functional_and_ends_in_logits(name):
    model = models.build({"name": name, "width": 4}, (16, 16, 3), 5)
    graph.require_functional(model)
    assert tuple(model.input.shape) == (None, 16, 16, 3)
    assert tuple(model.output.shape) == (None, 5)
    assert model.name == name
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("name", models.MODELS)
def test_names_of_layers_are_the_same_in_each_build(name):
    first, second = (
        models.build({"name": name, "width": 4}, (16, 16, 3), 5)
        for _ in range(2)
    )
    assert [layer.name for layer in first.layers] == [
        layer.name for layer in second.layers
    ]


def test_arguments_reach_the_model():
    config = {"name": "nin", "width": 6, "depth": 1, "dropout": 0.25}
    model = models.build(config, (8, 8, 1), 3)
    assert model.get_layer("logits").kernel.shape == [6, 3]
    assert model.get_layer("block0_dropout").rate == 0.25
    assert config["name"] == "nin"  # untouched


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "vgg"}, r"'vgg' is unknown: choose one of \['nin', 'resnet"),
        ({"name": "nin", "stem": "cifar"}, "model.stem is not an argument"),
        ({"name": "nin", "num_classes": 3}, "model.num_classes is not an arg"),
        ({"name": "nin", "width": "wide"}, "model 'nin' cannot be built"),
        ({"name": "resnet18", "stem": "x"}, "no stem 'x'"),
    ],
)
def test_errors(config, message):
    with pytest.raises(errors.ConfigError, match=message):
        models.build(config, (8, 8, 1), 3)
