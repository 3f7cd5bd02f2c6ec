"""The study of the paper on CIFAR-10, scaled down to two CPU cores.

64 float networks in network, all combinations of two values of six
hyper-parameters, each with its W8A8, W4A8 and W2A8 twins: 256 models, trained
on 5,000 examples of 16 x 16 pixels until they fit them equally well (QGen,
arXiv 2404.11769; the end of training is that of Jiang et al. 2020, arXiv
1912.02178).

    qgen-sweep --config=sweep_cifar10_nin --workdir=runs

Parameters: 32,890 to 228,202. What 64 of the models gave: docs/study/README.md.

Full scale: --config.dataset.image_size=32 --config.dataset.num_train=0
--config.dataset.num_test=0 and a loss of 0.01, on GPUs.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "sweep_cifar10_nin"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 16  # pixels a side
    config.dataset.num_train = 5_000  # examples
    config.dataset.num_test = 5_000  # examples
    config.model = {"name": "nin", "width": 48, "depth": 3, "dropout": 0.0}
    config.training.epochs = 50
    config.training.batch_size = 64
    config.training.warmup_epochs = 1.0
    config.training.stop_at_loss = 0.3  # nats
    config.quantization.epochs = 12
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
        ("training.learning_rate", (4e-3, 1.6e-2)),
        ("training.weight_decay", (1e-4, 1e-1)),
        ("training.batch_size", (32, 128)),
        ("model.width", (48, 96)),
        ("model.depth", (2, 3)),
        ("model.dropout", (0.0, 0.1)),
    )
    return config
