"""Transformers beside the networks of `sweep_cifar10_nin`, for two CPU cores.

8 vision transformers, all combinations of two values of three
hyper-parameters, each with its W8A8, W4A8 and W2A8 twins: 32 models, on the
data of the study of convolutional networks and with its measures. The records
of both, put together, are what claim 10 is about:

    qgen-sweep --config=sweep_cifar10_vit --workdir=runs
    qgen-report --output=both --records=runs/sweep_cifar10_nin/records.parquet,\
runs/sweep_cifar10_vit/records.parquet

Parameters: 104,906 and 154,890. Cost: 70 minutes on 2 CPU cores that were busy
with other work at times. What these models gave: docs/study/README.md.

Full scale: --config.dataset.image_size=32 --config.dataset.num_train=0
--config.dataset.num_test=0 on GPUs.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "sweep_cifar10_vit"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 16  # pixels a side
    config.dataset.num_train = 5_000  # examples
    config.dataset.num_test = 5_000  # examples
    config.model = {
        "name": "cifar_vit",
        "patch_size": 4,  # pixels a side: 16 tokens
        "width": 64,
        "depth": 3,
        "num_heads": 4,
        "dropout": 0.0,
        "drop_path": 0.0,
    }
    config.training.optimizer = "adamw"
    config.training.epochs = 80
    config.training.batch_size = 64
    config.training.warmup_epochs = 1.0
    config.training.stop_at_loss = 0.3  # nats
    config.quantization.epochs = 12
    config.quantization.per_axis_dense = True
    config.quantization.learning_rate = 1e-3
    config.twins = ((8, 8), (4, 8), (2, 8))
    config.measures.num_examples = 1024
    config.measures.names = (
        "average_sharpness",
        "pac_bayes_sigma",
        "l2_sharpness",
        "adaptive_l2_sharpness",
        "sam_sharpness",
        "hessian_trace",
        "regularization_gauss_newton",
        "generalization_bound",
        "parameter_norm",
        "margin_percentile",
    )
    config.corruptions.kinds = (
        "gaussian_noise",
        "gaussian_blur",
        "fog",
        "jpeg_compression",
    )
    config.corruptions.severities = (1, 3, 5)
    config.corruptions.num_examples = 1_000
    config.sweep.axes = (
        ("training.learning_rate", (1e-3, 2e-3)),
        ("training.weight_decay", (1e-4, 1e-1)),
        ("model.depth", (2, 3)),
    )
    return config
