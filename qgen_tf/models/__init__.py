"""Float models: plain functions that return flat Functional Keras models.

They know nothing of quantization.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models.applications import (
    check_normalization,
    efficientnet_b0,
    keras_resnet50,
    load_imagenet,
)
from qgen_tf.models.mobilenet import mobilenet_v2
from qgen_tf.models.nin import nin
from qgen_tf.models.pretrained import load_pretrained
from qgen_tf.models.resnet import resnet18, resnet20, resnet50
from qgen_tf.models.swin import cifar_swin, swin_tiny
from qgen_tf.models.vit import cifar_vit, deit_small, deit_tiny, vit_small

MODELS: dict[str, Callable[..., keras.Model]] = {
    "cifar_swin": cifar_swin,
    "cifar_vit": cifar_vit,
    "deit_small": deit_small,
    "deit_tiny": deit_tiny,
    "efficientnet_b0": efficientnet_b0,
    "keras_resnet50": keras_resnet50,
    "mobilenet_v2": mobilenet_v2,
    "nin": nin,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "swin_tiny": swin_tiny,
    "vit_small": vit_small,
}


def build(
    model_config: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> keras.Model:
    """Builds the model that a config names.

    Args:
      model_config: `name`, a key of `MODELS`, and the keyword arguments of
        that function; those of other models are refused.
      input_shape: (height, width, channels) of an image.
      num_classes: number of logits.

    Raises:
      ConfigError: the name or an argument is unknown, or a value is refused.
    """
    try:
        arguments = dict(model_config)
    except (TypeError, ValueError):
        raise errors.ConfigError(
            f"the model is {model_config!r}: pass its name and arguments, such "
            'as {"name": "nin", "width": 96}.'
        ) from None
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in MODELS:
        raise errors.ConfigError(
            f"model.name {name!r} is unknown: choose one of {sorted(MODELS)}."
        )
    known = [
        parameter.name
        for parameter in inspect.signature(MODELS[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for argument in arguments:
        if argument not in known:
            raise errors.ConfigError(
                f"model.{argument} is not an argument of {name!r}: it takes "
                f"{known}."
            )
    return MODELS[name](input_shape, num_classes, **arguments)


@errors.typed
def start_from(model: keras.Model, pretrained: str, normalization: str) -> None:
    """Gives a model the weights that a config names.

    Args:
      model: a float model.
      pretrained: the `training.pretrained` of the config.
      normalization: the `dataset.normalization` of the config.

    Raises:
      ConfigError: there are no weights of that name for the model, or its
        images are not normalized as in the training of these.
      DataError: they cannot be downloaded.
      ModelError: the file does not fit the model.
    """
    if pretrained == "imagenet":
        check_normalization(model.name, normalization)
        load_imagenet(model)
    elif pretrained:
        load_pretrained(model, pretrained)
