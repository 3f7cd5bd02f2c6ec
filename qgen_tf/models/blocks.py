"""What several models are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from qgen_tf import errors
from qgen_tf.compat import keras

layers = keras.layers

_Builder = TypeVar("_Builder", bound=Callable[..., keras.Model])


def builder(function: _Builder) -> _Builder:
    """Has a function that builds a model refuse what Keras fails on.

    It raises a ConfigError then, which names the model.

    Args:
      function: of the shape of an image, the number of classes, and settings.
    """

    @functools.wraps(function)
    def build(*arguments: Any, **settings: Any) -> keras.Model:
        try:
            return function(*arguments, **settings)
        except (TypeError, ValueError) as error:
            given = [*map(repr, arguments)]
            given += [f"{name}={value!r}" for name, value in settings.items()]
            raise errors.ConfigError(
                f"model {function.__name__!r} cannot be built from "
                f"({', '.join(given)}): {error}; it takes the shape of an "
                "image, the number of classes, and what its docstring lists."
            ) from error

    return build  # type: ignore


def require_stem(stem: str, *, model: str) -> None:
    """Raises unless `stem` is "cifar" or "imagenet".

    Raises:
      ConfigError: names the model and both stems.
    """
    if stem not in ("cifar", "imagenet"):
        raise errors.ConfigError(
            f"{model} has no stem {stem!r}: choose 'cifar' or 'imagenet'."
        )


def dropout(
    x: Any,
    rate: float,
    *,
    name: str,
    noise_shape: tuple[int | None, ...] | None = None,
) -> Any:
    """Applies a dropout that training can repeat; none if the rate is 0.

    Its generator is one that can be reseeded: a training that goes on after a
    kill draws what one that was not killed does.
    """
    if not rate:
        return x
    return layers.Dropout(rate, noise_shape, rng_type="stateful", name=name)(x)


def conv_bn(
    x: Any,
    filters: int,
    kernel_size: int,
    strides: int,
    *,
    kernel_initializer: str,
    name: str,
) -> Any:
    """Applies a convolution without bias, and BatchNorm behind it."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=kernel_initializer,
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def depthwise_bn(x: Any, kernel_size: int, strides: int, *, name: str) -> Any:
    """Applies a convolution of each channel alone, and BatchNorm behind it.

    Kernels are drawn as He et al. 2015 do. Keras takes the outputs of a
    depthwise kernel for its inputs, hence `fan_out`.
    """
    x = layers.DepthwiseConv2D(
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_out"
        ),
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def classifier(inputs: Any, x: Any, num_classes: int, name: str) -> Any:
    """Returns the model that averages the features `x` and classifies them.

    Args:
      inputs: the image, input of the model.
      x: features [batch, height, width, channels] computed from `inputs`.
      num_classes: number of logits.
      name: of the model.
    """
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, logits, name=name)
