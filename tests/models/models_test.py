"""`models.build` and what all models have in common."""

import functools

import numpy as np
import pytest

from qgen_tf import errors, models
from qgen_tf.compat import keras
from qgen_tf.layers import (
    AttentionBias,
    CyclicShift,
    MatMul,
    PositionEmbedding,
)
from qgen_tf.quantization import graph

layers = keras.layers

_VIT = {"width": 8, "depth": 2, "num_heads": 2, "patch_size": 4}
_SWIN = {"width": 8, "depths": (2, 1), "num_heads": (1, 2), "patch_size": 2}

# arguments that make a model quick to build
SMALL = {
    "cifar_swin": _SWIN,
    "cifar_vit": _VIT,
    "deit_small": _VIT,
    "deit_tiny": _VIT,
    "mobilenet_v2": {"alpha": 0.1},
    "nin": {"width": 4},
    "resnet18": {"width": 4},
    "resnet20": {"width": 4},
    "resnet50": {"width": 4},
    "swin_tiny": {**_SWIN, "window_size": 4},
    "vit_small": _VIT,
}
PRIMITIVES = {
    AttentionBias,
    CyclicShift,
    MatMul,
    PositionEmbedding,
    layers.Activation,
    layers.Add,
    layers.BatchNormalization,
    layers.Conv2D,
    layers.Cropping1D,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.InputLayer,
    layers.LayerNormalization,
    layers.MaxPooling2D,
    layers.Permute,
    layers.ReLU,
    layers.Reshape,
    layers.Softmax,
}


# of the others, see applications_test.py
OURS = sorted(models.MODELS.keys() - {"efficientnet_b0", "keras_resnet50"})


def _build(name, **arguments):
    config = {"name": name, **SMALL[name], **arguments}
    return models.build(config, (16, 16, 3), 5)


_small = functools.cache(_build)


@pytest.mark.parametrize("name", OURS)
def test_every_model_is_flat_functional_and_ends_in_logits(name):
    model = _small(name)
    graph.require_functional(model)
    assert tuple(model.input.shape) == (None, 16, 16, 3)
    assert tuple(model.output.shape) == (None, 5)
    assert model.name == name
    assert model.layers[-1].activation is keras.activations.linear
    logits = model(np.ones((2, 16, 16, 3), np.float32)).numpy()
    assert logits.shape == (2, 5) and np.isfinite(logits).all()


@pytest.mark.parametrize("name", OURS)
def test_layers_are_primitive(name):
    assert {type(layer) for layer in _small(name).layers} <= PRIMITIVES


@pytest.mark.parametrize("name", OURS)
def test_names_of_layers_are_the_same_in_each_build(name):
    assert [layer.name for layer in _small(name).layers] == [
        layer.name for layer in _build(name).layers
    ]


@pytest.mark.parametrize(
    ("config", "size", "classes", "trainable"),
    [
        # pytorch-cifar's
        ({"name": "resnet18"}, 32, 10, 11_173_962),
        # torchvision's
        ({"name": "resnet18", "stem": "imagenet"}, 224, 1000, 11_689_512),
        ({"name": "resnet50", "stem": "imagenet"}, 224, 1000, 25_557_032),
        ({"name": "mobilenet_v2", "stem": "imagenet"}, 224, 1000, 3_504_872),
        # timm's
        ({"name": "deit_tiny"}, 224, 1000, 5_717_416),
        ({"name": "deit_small"}, 224, 1000, 22_050_664),
        ({"name": "swin_tiny"}, 224, 1000, 28_288_354),
    ],
)
def test_published_number_of_parameters(config, size, classes, trainable):
    model = models.build(config, (size, size, 3), classes)
    weights = model.trainable_weights
    assert sum(np.prod(weight.shape) for weight in weights) == trainable


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50"])
def test_unknown_stem(name):
    message = f"^{name} has no stem 'tiny': choose 'cifar' or 'imagenet'.$"
    with pytest.raises(errors.ConfigError, match=message):
        _build(name, stem="tiny")


def test_arguments_reach_the_model():
    config = {"name": "nin", "width": 6, "depth": 1, "dropout": 0.25}
    model = models.build(config, (8, 8, 1), 3)
    assert model.get_layer("logits").kernel.shape == [6, 3]
    assert model.get_layer("block0_dropout").rate == 0.25
    assert config["name"] == "nin"  # untouched


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "the model is None: pass its name and arguments, such as"),
        ("nin", "the model is 'nin': pass its name and arguments, such as"),
        ([], "model.name None is unknown: choose one of"),
        ({"name": "vgg"}, r"'vgg' is unknown: choose one of \['cifar_swin',"),
        ({"name": "nin", "stem": "cifar"}, "model.stem is not an argument"),
        ({"name": "resnet20", "stem": "cifar"}, r"takes \['depth', 'width'\]"),
        ({"name": "nin", "num_classes": 3}, "model.num_classes is not an arg"),
        ({"name": "nin", "width": "wide"}, "model 'nin' cannot be built"),
        ({"name": "resnet20", "depth": "20"}, "model 'resnet20' cannot be bu"),
        ({"name": "mobilenet_v2", "alpha": "1"}, "'mobilenet_v2' cannot be"),
        ({"name": "resnet18", "stem": ["x"]}, r"no stem \['x'\]"),
    ],
)
def test_errors(config, message):
    with pytest.raises(errors.ConfigError, match=message):
        models.build(config, (8, 8, 1), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 10), r"model 'nin' cannot be built from \(None, 10\): "),
        (((8, 8, 1), "ten"), r"from \(\(8, 8, 1\), 'ten'\): "),
        (((8, 8, 1),), "missing 1 required positional argument: 'num_classes'"),
    ],
)
def test_a_function_of_a_model_names_it_in_its_errors(arguments, message):
    with pytest.raises(errors.ConfigError, match=message):
        models.MODELS["nin"](*arguments)
