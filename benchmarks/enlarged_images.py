"""Image files as large as those of ImageNet, where it is not at hand."""

from __future__ import annotations

import pathlib

_COUNT = 512  # of a split
_NOISE = 12.0  # as much detail as makes files of the size of ImageNet's
_QUALITY = 90


def write(dataset: str, folder: str, shorter_side: int) -> str:
    """Writes enlarged, noisy JPEG files of the first images of a data set.

    Args:
      dataset: a name as in `dataset.name` of a config.
      folder: to write to.
      shorter_side: in pixels; the other one is 4/3 of it.

    Returns:
      The name of the data set that they are.
    """
    import tensorflow as tf

    from qgen_tf.data import datasets

    source = datasets.source(dataset)
    size = (shorter_side, shorter_side * 4 // 3)
    for split, stored in (("train", source.train), ("test", source.test)):
        for index, (image, label) in enumerate(stored.images().take(_COUNT)):
            image = tf.image.resize(image, size, method="bicubic")
            if image.shape[-1] == 1:
                image = tf.image.grayscale_to_rgb(image)
            noise = tf.random.stateless_normal(image.shape, (index, 0))
            image = tf.saturate_cast(image + _NOISE * noise, tf.uint8)
            path = pathlib.Path(
                folder, split, source.class_names[label], f"{index}.jpg"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_jpeg(image, quality=_QUALITY).numpy())
    return f"image_folder:{folder}"
