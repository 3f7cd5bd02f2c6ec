"""ResNet-18 on CIFAR-10, scaled down to a CPU.

The float model, and twins of 8, 4 and 2 bits that are fine-tuned from it. For
the figures of the paper (QGen, arXiv 2404.11769): bin widths of each layer,
and the loss around float and quantized weights.

    qgen-sweep --config=cifar10_resnet18 --workdir=runs

Parameters: 703,866. Cost: some 6 minutes on 2 busy CPU cores for training.

Full scale: --config.dataset.num_train=0 --config.model.width=64
--config.training.epochs=100 --config.quantization.epochs=30 on a GPU.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "cifar10_resnet18"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 32  # pixels a side
    config.dataset.num_train = 4_000  # examples
    config.dataset.num_test = 2_000  # examples
    config.dataset.crop_padding = 4  # pixels
    config.dataset.flip = True
    config.model = {"name": "resnet18", "stem": "cifar", "width": 16}
    config.training.epochs = 12
    config.training.batch_size = 64
    config.training.learning_rate = 4e-3
    config.quantization.epochs = 4
    config.quantization.learning_rate = 2e-3
    config.twins = ((8, 8), (4, 8), (2, 8))
    return config
