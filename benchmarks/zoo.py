"""Models that are quantized as they are: ours, and those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from qgen_tf import compat, models
from qgen_tf.compat import keras

Build: TypeAlias = Callable[[], keras.Model]

IMAGE_SIZE = 64
NUM_CLASSES = 10
_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


# windows of 7 tokens need images of 224 pixels
_ARGUMENTS = {"swin_tiny": {"window_size": 4}}


def _ours(name: str) -> Build:
    arguments = _ARGUMENTS.get(name, {})
    return lambda: models.MODELS[name](_SHAPE, NUM_CLASSES, **arguments)


def _application(name: str) -> Build:
    """A model of tf_keras.applications as it is, up to the logits."""
    return lambda: getattr(keras.applications, name)(
        weights=None,
        input_shape=_SHAPE,
        classes=NUM_CLASSES,
        classifier_activation=None,
    )


def _backbone(name: str, block_type: str) -> Build:
    """A ResNet-18 of keras-cv, with its own rescaling, and a head."""

    def build() -> Any:
        backbone = getattr(compat.keras_cv().models, name)(
            stackwise_filters=[64, 128, 256, 512],
            stackwise_blocks=[2, 2, 2, 2],
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=True,
            input_shape=_SHAPE,
            block_type=block_type,
        )
        x = keras.layers.GlobalAveragePooling2D()(backbone.output)
        logits = keras.layers.Dense(NUM_CLASSES, name="logits")(x)
        return keras.Model(backbone.input, logits, name=name)

    return build


# name -> (where it is from, how it is built)
ZOO: dict[str, tuple[str, Build]] = {
    **{
        name: ("qgen_tf", _ours(name))
        for name in (
            *("nin", "resnet18", "resnet20", "resnet50", "mobilenet_v2"),
            *("cifar_vit", "deit_tiny", "cifar_swin", "swin_tiny"),
        )
    },
    **{
        name: ("tf_keras.applications", _application(name))
        for name in (
            "ResNet50",
            "MobileNetV2",
            "MobileNetV3Small",
            "EfficientNetB0",
        )
    },
    "ResNetBackbone": ("keras_cv", _backbone("ResNetBackbone", "basic_block")),
    "ResNetV2Backbone": (
        "keras_cv",
        _backbone("ResNetV2Backbone", "basic_block"),
    ),
}
