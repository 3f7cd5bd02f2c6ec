"""A small Swin on CIFAR-10, scaled down to a CPU: what quantization costs.

The float model and its W8A8, W4A8, W4A4 and W2A8 twins. Recipe after
Liu et al. 2021 (arXiv 2103.14030): AdamW, cosine, warm-up, weight decay 0.05
and label smoothing, with far fewer epochs and milder augmentation; the twins
have the float model as a teacher.

Bits are those of the weights, and of what dense layers and products of
attention read. What is added up on the shortcuts, and the scores that softmax
reads, have 8 bits.

    python -m benchmarks.qat_accuracy --config=cifar10_swin --workdir=runs

Parameters: 567,046. Cost: 10 minutes on 2 busy CPU cores for the float model
of a seed, and 6 to 8 for each twin. Results with 5,000 examples:
docs/results.md.

Full scale: --config.dataset.num_train=0 --config.training.epochs=200
--config.model.width=64 --config.model.drop_path=0.1
--config.quantization.epochs=60 on a GPU.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "cifar10_swin"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 32  # pixels a side
    config.dataset.num_train = 10_000  # examples
    config.dataset.num_test = 10_000  # examples
    config.dataset.crop_padding = 4  # pixels
    config.dataset.flip = True
    config.model = {
        "name": "cifar_swin",
        "patch_size": 2,  # pixels a side: 16 x 16 tokens in the first stage
        "width": 32,  # of the first stage; 128 in the last
        "depths": (2, 2, 2),  # blocks of each stage
        "num_heads": (2, 4, 8),  # of each stage
        "window_size": 4,  # tokens a side
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
        ("patches_norm", None, 8),  # what is added up on the shortcuts
        ("*_reduction", None, 8),
        ("*_projection", None, 8),
        ("*_contract", None, 8),
        ("*_add", None, 8),
        ("*_scores", None, 8),  # what the bias of positions is added to
    )
    config.twins = ((8, 8), (4, 8), (4, 4), (2, 8))
    return config
