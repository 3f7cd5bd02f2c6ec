"""ResNet-18 on ImageNet, and twins of 8, 4 and 2 bits.

Recipe: Goyal et al. 2017 (arXiv 1706.02677, section 5.1: SGD, learning rate
0.1 for a batch of 256, warm-up of 5 epochs, 90 epochs, random resized crops)
with the cosine schedule of He et al. 2018 (arXiv 1812.01187, section 5.1).
Their penalty of 1e-4 is a decoupled decay of 1e-4 / (1 - momentum). Twins
after Esser et al. 2020 (LSQ, arXiv 1902.08153, section 3), with 30 epochs for
90.

    qgen-sweep --config=imagenet_resnet18 --workdir=runs

reads `imagenet2012` of tensorflow_datasets, which has to be prepared from
archives that are downloaded by hand; the first error says how. On a GPU add
--config.training.mixed_precision=mixed_bfloat16.

Parameters: 11,699,112. Published float accuracy: 69.8 % (torchvision).
Cost, an estimate: 1.8e9 multiplications an image, 6 operations for each
(forward and backward), 1,281,167 images and 90 epochs are 1.3e18 operations:
17 hours on a device that reaches 2e13 a second. A twin has a third of the
epochs and takes some 1.3 times as long for each: 8 hours. The device then
takes 1,900 images a second, which are 6 cores' (benchmarks/input_pipeline.py).

Weights to start from: --config.training.pretrained=PATH, a file of
.weights.h5.

Reduced, in minutes on a CPU: --config.dataset.name=image_folder:PATH
--config.dataset.image_size=64 --config.model.width=16
--config.training.batch_size=64 --config.training.learning_rate=0.02
--config.training.epochs=5 --config.training.warmup_epochs=1
--config.quantization.epochs=2
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "imagenet_resnet18"
    config.dataset.name = "imagenet2012"
    config.dataset.image_size = 224  # pixels a side
    config.dataset.center_crop = 0.875  # of the shorter side
    config.dataset.normalization = "imagenet"
    config.dataset.random_resized_crop = 0.08  # of the area at least
    config.dataset.flip = True
    config.model = {"name": "resnet18", "stem": "imagenet", "width": 64}
    config.training.epochs = 90
    config.training.batch_size = 256
    config.training.optimizer = "sgd"
    config.training.learning_rate = 0.1
    config.training.warmup_epochs = 5.0
    config.training.weight_decay = 1e-3
    config.quantization.epochs = 30
    config.quantization.learning_rate = 0.01
    config.twins = ((8, 8), (4, 8), (2, 8))
    return config
