"""Networks of tf_keras.applications, and the weights published for them.

Their own preprocessing is cut off: images come normalized. Weights that were
trained on ImageNet want them as `Published.normalization` says, which is the
`dataset.normalization` to set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import blocks

# standard deviation of the channels of ImageNet, for pixels in 0..1
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def _from(
    first_layer: str,
    application: Callable[..., keras.Model],
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    name: str,
    **arguments: Any,
) -> keras.Model:
    """Returns an untrained application from `first_layer` to the logits."""
    whole = application(
        weights=None,
        input_shape=input_shape,
        classes=num_classes,
        classifier_activation=None,
        **arguments,
    )
    body = keras.Model(whole.get_layer(first_layer).input, whole.output)
    inputs = keras.layers.Input(input_shape, name="image")
    copy = keras.models.clone_model(body, input_tensors=inputs)
    return keras.Model(copy.input, copy.output, name=name)


@blocks.builder
def efficientnet_b0(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    drop_path: float = 0.2,
) -> keras.Model:
    """Builds an EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946).

    Args:
      input_shape: (height, width, channels) of an image, 32 pixels a side or
        more.
      num_classes: number of logits.
      drop_path: rate of stochastic depth behind the last block; it rises
        linearly from 0 in the first.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ValueError: the image is too small.
    """
    return _from(
        "stem_conv_pad",
        keras.applications.EfficientNetB0,
        input_shape,
        num_classes,
        name="efficientnet_b0",
        drop_connect_rate=drop_path,
    )


@blocks.builder
def keras_resnet50(
    input_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    """Builds a ResNet-50 as first published (He et al. 2015).

    Unlike in `resnet50`, the first convolution of a block has its stride, and
    images are padded alike on all sides: weights of one do not fit the other.

    Args:
      input_shape: (height, width, channels) of an image, 32 pixels a side or
        more.
      num_classes: number of logits.

    Returns:
      A flat Functional model, images [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ValueError: the image is too small.
    """
    return _from(
        "conv1_pad",
        keras.applications.ResNet50,
        input_shape,
        num_classes,
        name="keras_resnet50",
    )


def _same(kernel: np.ndarray, whole: keras.Model) -> np.ndarray:
    del whole
    return kernel


def _from_blue_first(kernel: np.ndarray, whole: keras.Model) -> np.ndarray:
    """Returns the kernel for the channels red, green, blue."""
    del whole
    return kernel[:, :, ::-1]


def _from_own_scale(kernel: np.ndarray, whole: keras.Model) -> np.ndarray:
    """Returns the kernel for channels of standard deviation one.

    The model's first layers give them another, of which its authors write
    that it mends a mistake: it is measured.
    """
    front = keras.Model(whole.input, whole.get_layer("stem_conv_pad").input)
    shape = whole.input_shape[1:]
    black, white = front(np.stack([np.zeros(shape), np.full(shape, 255.0)]))
    contrast = (white - black)[0, 0].numpy()
    return kernel * (contrast * _DEVIATION)[:, np.newaxis]


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights of tf_keras.applications, trained on ImageNet.

    Attributes:
      application: name of the function in `keras.applications`.
      normalization: `dataset.normalization` of images that they take.
      first_kernel: from the first kernel [height, width, 3, channels] and the
        model that it is of to the one for images so normalized.
    """

    application: str
    normalization: str
    first_kernel: Callable[[np.ndarray, keras.Model], np.ndarray]


# name of one of our models -> weights that fit it
PUBLISHED: dict[str, Published] = {
    "efficientnet_b0": Published("EfficientNetB0", "imagenet", _from_own_scale),
    "keras_resnet50": Published("ResNet50", "caffe", _from_blue_first),
    "mobilenet_v2": Published("MobileNetV2", "symmetric", _same),
}


def check_normalization(name: str, normalization: str) -> None:
    """Raises unless images are as the ImageNet weights of a model want them.

    Args:
      name: of the model.
      normalization: the `dataset.normalization` of the config.

    Raises:
      ConfigError: they are not.
    """
    published = PUBLISHED.get(name)
    if published and published.normalization != normalization:
        raise errors.ConfigError(
            f"dataset.normalization is {normalization!r}: the ImageNet weights "
            f"of {name!r} want {published.normalization!r}."
        )


def load_imagenet(model: keras.Model) -> None:
    """Gives a model the weights that tf_keras.applications has for it.

    They are downloaded into ~/.keras/models, unless they are there. With the
    images as `PUBLISHED[model.name].normalization` says, a model of 1,000
    classes then computes what that of tf_keras.applications does; with
    another number of classes, the last layer stays as it is, and a warning is
    logged.

    Args:
      model: untrained, its name a key of `PUBLISHED`, its size the default.

    Raises:
      ConfigError: there are no weights for the model.
      DataError: they cannot be downloaded.
    """
    if model.name not in PUBLISHED:
        raise errors.ConfigError(
            f"tf_keras.applications has no weights for {model.name!r}: give "
            f"the path of a file, or choose one of {sorted(PUBLISHED)}."
        )
    published = PUBLISHED[model.name]
    try:
        whole = getattr(keras.applications, published.application)(
            weights="imagenet"
        )
    except Exception as error:
        raise errors.DataError(
            f"the ImageNet weights of {model.name!r} cannot be downloaded "
            f"({error}): copy ~/.keras/models from a machine with internet "
            "access, or give the path of a file."
        ) from error
    _copy(whole, model, published)


def _copy(whole: keras.Model, model: keras.Model, published: Published) -> None:
    *theirs, their_last = _weighted(whole)
    *ours, our_last = _weighted(model)
    if [_shapes(layer) for layer in ours] != [_shapes(x) for x in theirs]:
        raise errors.ConfigError(
            f"the ImageNet weights of {model.name!r} are for its default size "
            "and three channels: leave out the model's arguments."
        )
    for layer, other in zip(ours, theirs, strict=True):
        layer.set_weights(other.get_weights())
    kernel, *others = theirs[0].get_weights()
    kernel = published.first_kernel(kernel, whole)
    ours[0].set_weights([kernel, *others])
    if _shapes(our_last) == _shapes(their_last):
        our_last.set_weights(their_last.get_weights())
    else:
        logging.warning(
            "the ImageNet weights of %r have another number of classes: the "
            "layer %r keeps the weights it has.",
            model.name,
            our_last.name,
        )


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers with weights but for those of preprocessing."""
    return [
        layer
        for layer in model.layers
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
