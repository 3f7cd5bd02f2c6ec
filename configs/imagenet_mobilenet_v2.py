"""MobileNetV2 on ImageNet, and twins of 8 and 4 bits.

Recipe: the weight decay of Sandler et al. 2018 (arXiv 1801.04381, section
6.1), a penalty of 4e-5, here a decoupled decay of 4e-5 / (1 - momentum); for
their RMSProp the SGD with warm-up and cosine schedule of He et al. 2018 (arXiv
1812.01187, sections 3.1 and 5.1). Crops are larger than for a ResNet: a small
network underfits. Twins after Esser et al. 2020 (LSQ, arXiv 1902.08153,
section 3), with the float model as a teacher and 30 epochs for 90.

    qgen-sweep --config=imagenet_mobilenet_v2 --workdir=runs

reads `imagenet2012` of tensorflow_datasets, which has to be prepared from
archives that are downloaded by hand; the first error says how. On a GPU add
--config.training.mixed_precision=mixed_bfloat16.

The normalization is that of the weights of tf_keras.applications, which fit
this model (qgen_tf/models/applications.py).

Parameters: 3,538,984. Published float accuracy: 72.0 % (the paper, table 4).
Cost, an estimate: 3.0e8 multiplications an image, 6 operations for each
(forward and backward), 1,281,167 images and 150 epochs are 3.5e17 operations:
20 hours on a device that, slowed by depthwise convolutions, reaches 5e12 a
second. A twin has a fifth of the epochs and takes, with its teacher, some 1.6
times as long for each: 6 hours. The device then takes 2,700 images a
second, which are 9 cores' (benchmarks/input_pipeline.py).

Weights to start from: --config.training.pretrained=imagenet, with
--config.dataset.normalization=symmetric, or the path of a file.

Reduced, in minutes on a CPU: --config.dataset.name=image_folder:PATH
--config.dataset.image_size=64 --config.model.alpha=0.35
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
    config.name = "imagenet_mobilenet_v2"
    config.dataset.name = "imagenet2012"
    config.dataset.image_size = 224  # pixels a side
    config.dataset.center_crop = 0.875  # of the shorter side
    config.dataset.normalization = "symmetric"
    config.dataset.random_resized_crop = 0.2  # of the area at least
    config.dataset.flip = True
    config.model = {"name": "mobilenet_v2", "stem": "imagenet", "alpha": 1.0}
    config.training.epochs = 150
    config.training.batch_size = 256
    config.training.optimizer = "sgd"
    config.training.learning_rate = 0.1
    config.training.warmup_epochs = 5.0
    config.training.weight_decay = 4e-4
    config.quantization.epochs = 30
    config.quantization.learning_rate = 0.01
    config.quantization.distillation = 0.5
    config.twins = ((8, 8), (4, 8))
    return config
