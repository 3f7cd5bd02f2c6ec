"""DeiT-Tiny on ImageNet, and twins of 8 and 4 bits.

Recipe: Touvron et al. 2020 (DeiT, arXiv 2012.12877, section 6 and table 9):
AdamW, 300 epochs of batches of 1,024, learning rate 5e-4 for 512 images,
RandAugment of strength 9 of 10, MixUp 0.8, CutMix 1.0, label smoothing and
stochastic depth 0.1; without random erasing and repeated augmentation. Twins
are fine-tuned with the float model as a teacher.

    qgen-sweep --config=imagenet_deit_tiny --workdir=runs

reads `imagenet2012` of tensorflow_datasets, which has to be prepared from
archives that are downloaded by hand; the first error says how. On a GPU add
--config.training.mixed_precision=mixed_bfloat16.

Parameters: 5,717,416. Published float accuracy: 72.2 % (the paper, table 5).
Cost, an estimate: 1.3e9 multiplications an image, 6 operations for each
(forward and backward), 1,281,167 images and 300 epochs are 2.9e18 operations:
40 hours on a device that reaches 2e13 a second. A twin has a tenth of the
epochs and takes, with its teacher, some 1.6 times as long for each: 6 hours.
The device then takes 2,700 images a second. With RandAugment, a core makes
some 90 by estimate: 30 cores, or 9 with
--config.dataset.rand_augment=0.

Published weights to start from: --config.training.pretrained=PATH, a file of
.safetensors or .npz under the names of timm or the authors.

Reduced, in minutes on a CPU: --config.dataset.name=image_folder:PATH
--config.dataset.image_size=64 --config.model.patch_size=8
--config.model.width=96 --config.model.depth=4
--config.training.batch_size=64 --config.training.epochs=5
--config.training.warmup_epochs=1 --config.quantization.epochs=2
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "imagenet_deit_tiny"
    config.dataset.name = "imagenet2012"
    config.dataset.image_size = 224  # pixels a side
    config.dataset.center_crop = 0.875  # of the shorter side
    config.dataset.normalization = "imagenet"
    config.dataset.random_resized_crop = 0.08  # of the area at least
    config.dataset.flip = True
    config.dataset.rand_augment = 0.9
    config.dataset.mixup = 0.8
    config.dataset.cutmix = 1.0
    config.model = {
        "name": "deit_tiny",
        "patch_size": 16,  # pixels a side
        "width": 192,
        "depth": 12,
        "num_heads": 3,
        "drop_path": 0.1,
    }
    config.training.epochs = 300
    config.training.batch_size = 1024
    config.training.learning_rate = 1e-3
    config.training.warmup_epochs = 5.0
    config.training.weight_decay = 0.05
    config.training.label_smoothing = 0.1
    config.quantization.epochs = 30
    config.quantization.per_axis_dense = True
    config.quantization.learning_rate = 1e-4
    config.quantization.distillation = 0.5
    config.twins = ((8, 8), (4, 8))
    return config
