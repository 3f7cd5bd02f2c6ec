"""A small ViT on CIFAR-10, scaled down to a CPU: what quantization costs.

The float model and its W8A8, W4A8, W4A4 and W2A8 twins. Recipe after DeiT
(Touvron et al. 2020, arXiv 2012.12877): AdamW, cosine, warm-up, weight decay
0.05 and label smoothing, with far fewer epochs and milder augmentation; the
twins have the float model as a teacher.

Bits are those of the weights, and of what dense layers and products of
attention read. What is added up on the shortcuts, and the scores that softmax
reads, have 8 bits.

    python -m benchmarks.qat_accuracy --config=cifar10_vit --workdir=runs

Parameters: 459,370. Cost: 13 minutes on 2 busy CPU cores for the float model
of a seed, and 5 for each twin. Results with 5,000 examples: docs/results.md.

Full scale: --config.dataset.num_train=0 --config.training.epochs=200
--config.model.depth=9 --config.model.drop_path=0.1
--config.quantization.epochs=60 on a GPU.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "cifar10_vit"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 32  # pixels a side
    config.dataset.num_train = 10_000  # examples
    config.dataset.num_test = 10_000  # examples
    config.dataset.crop_padding = 4  # pixels
    config.dataset.flip = True
    config.model = {
        "name": "cifar_vit",
        "patch_size": 4,  # pixels a side: 64 tokens
        "width": 96,
        "depth": 4,
        "num_heads": 3,
        "dropout": 0.0,
        "drop_path": 0.0,
    }
    config.training.epochs = 20
    config.training.batch_size = 128
    config.training.optimizer = "adamw"
    config.training.learning_rate = 1e-3
    config.training.warmup_epochs = 2.0
    config.training.weight_decay = 0.05
    config.training.label_smoothing = 0.1
    config.quantization.epochs = 5
    config.quantization.per_axis_dense = True
    config.quantization.learning_rate = 5e-4
    config.quantization.distillation = 0.5
    config.quantization.overrides = (
        ("position", None, 8),  # what is added up on the shortcuts
        ("*_projection", None, 8),
        ("*_contract", None, 8),
        ("*_add", None, 8),
    )
    config.twins = ((8, 8), (4, 8), (4, 4), (2, 8))
    return config
