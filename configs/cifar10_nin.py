"""Network in network on CIFAR-10, scaled down to a CPU.

The float model is trained without augmentation until it fits its training set,
so that there is a gap to study; its W8A8, W4A8 and W2A8 twins are fine-tuned
from it. Study of the paper (QGen, arXiv 2404.11769): CNNs on CIFAR-10.

    qgen-sweep --config=cifar10_nin --workdir=runs

Parameters: 102,986. Cost: some 25 minutes on 2 CPU cores. Expected: training
accuracy 100 % and test accuracy 58 % of the float model; docs/results.md.

Full scale: --config.dataset.num_train=0 --config.dataset.num_test=0
--config.model.width=192 --config.training.epochs=100 on a GPU.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "cifar10_nin"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 32  # pixels a side
    config.dataset.num_train = 10_000  # examples
    config.dataset.num_test = 10_000  # examples
    config.model = {"name": "nin", "width": 64, "depth": 3, "dropout": 0.0}
    config.training.epochs = 30
    config.training.batch_size = 128
    config.training.learning_rate = 4e-3
    config.quantization.epochs = 10
    config.quantization.learning_rate = 1e-3
    config.twins = ((8, 8), (4, 8), (2, 8))
    return config
