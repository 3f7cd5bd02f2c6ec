"""Swin-Tiny on ImageNet, and twins of 8 and 4 bits.

Recipe: Liu et al. 2021 (Swin, arXiv 2103.14030, appendix A2.1): AdamW, 300
epochs of batches of 1,024, learning rate 1e-3, warm-up of 20 epochs, the
augmentations of DeiT (Touvron et al. 2020, arXiv 2012.12877, table 9) and
stochastic depth 0.2; without random erasing and clipping of gradients. Twins
are fine-tuned with the float model as a teacher.

    qgen-sweep --config=imagenet_swin_tiny --workdir=runs

reads `imagenet2012` of tensorflow_datasets, which has to be prepared from
archives that are downloaded by hand; the first error says how. On a GPU add
--config.training.mixed_precision=mixed_bfloat16.

Parameters: 28,288,354. Published float accuracy: 81.3 % (the paper, table 1).
Cost, an estimate: 4.5e9 multiplications an image, 6 operations for each
(forward and backward), 1,281,167 images and 300 epochs are 1.0e19 operations:
140 hours on a device that reaches 2e13 a second. A twin has a tenth of the
epochs and takes, with its teacher, some 1.6 times as long for each: 22 hours.
The device then takes 740 images a second, with RandAugment those of 8 cores
by estimate.

Published weights to start from: --config.training.pretrained=PATH, a file of
.safetensors or .npz under the names of timm or the authors.

Reduced, in minutes on a CPU: --config.dataset.name=image_folder:PATH
--config.dataset.image_size=64 --config.model.width=24
--config.model.window_size=4 --config.training.batch_size=64
--config.training.epochs=5 --config.training.warmup_epochs=1
--config.quantization.epochs=2
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "imagenet_swin_tiny"
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
        "name": "swin_tiny",
        "patch_size": 4,  # pixels a side
        "width": 96,
        "depths": (2, 2, 6, 2),
        "num_heads": (3, 6, 12, 24),
        "window_size": 7,  # patches a side
        "drop_path": 0.2,
    }
    config.training.epochs = 300
    config.training.batch_size = 1024
    config.training.learning_rate = 1e-3
    config.training.warmup_epochs = 20.0
    config.training.weight_decay = 0.05
    config.training.label_smoothing = 0.1
    config.quantization.epochs = 30
    config.quantization.per_axis_dense = True
    config.quantization.learning_rate = 1e-4
    config.quantization.distillation = 0.5
    config.twins = ((8, 8), (4, 8))
    return config
