"""A ResNet-18 of half the width on images of your own, and its twins.

The folder has train/<class>/ and test/<class>/ (or validation/<class>/) with
JPEG or PNG files of any size. Images are cropped to 96 pixels a side.

    qgen-sweep --config=image_folder --config.dataset.name=image_folder:PATH

Parameters: 2,806,250 with 10 classes. Cost, an estimate: 8.9e7 multiplications
an image and 6 operations for each are 5e8: 30 epochs of 5,000 images take 14
minutes on CPU cores that reach 1e11 operations a second together, and each
twin 6. Larger images: --config.dataset.image_size=224
--config.model.width=64. With few images, keep --config.training.weight_decay
and --config.dataset.rand_augment up; where the side of things matters (digits,
letters), --config.dataset.flip=False.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "image_folder"
    config.dataset.name = "image_folder:"  # the path goes behind the colon
    config.dataset.image_size = 96  # pixels a side
    config.dataset.center_crop = 0.875  # of the shorter side
    config.dataset.normalization = "imagenet"
    config.dataset.random_resized_crop = 0.35  # of the area at least
    config.dataset.flip = True
    config.model = {"name": "resnet18", "stem": "imagenet", "width": 32}
    config.training.epochs = 30
    config.training.batch_size = 64
    config.training.learning_rate = 4e-3
    config.training.weight_decay = 1e-2
    config.quantization.epochs = 8
    config.quantization.learning_rate = 1e-3
    config.quantization.distillation = 0.5
    config.twins = ((8, 8), (4, 8), (2, 8))
    return config
