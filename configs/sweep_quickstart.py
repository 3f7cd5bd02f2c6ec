"""A small study in minutes, on data that needs no download.

Six float networks in network on scikit-learn's digits, three learning rates
and two seeds, each with its W8A8, W4A8 and W2A8 twins: 24 models, trained
until they fit the training set equally well, on clean and corrupted images.

    qgen-sweep --config=sweep_quickstart --workdir=runs

Parameters: 4,026.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "sweep_quickstart"
    config.dataset.name = "digits"
    config.dataset.image_size = 16  # pixels a side
    config.model = {"name": "nin", "width": 16, "depth": 2, "dropout": 0.0}
    config.training.epochs = 40
    config.training.batch_size = 64
    config.training.stop_at_loss = 0.1  # nats
    config.quantization.epochs = 6
    config.quantization.learning_rate = 1e-3
    config.twins = ((8, 8), (4, 8), (2, 8))
    config.measures.num_examples = 512
    config.measures.names = (
        "average_sharpness",
        "pac_bayes_sigma",
        "regularization_gauss_newton",
        "parameter_norm",
    )
    config.corruptions.kinds = ("gaussian_noise", "contrast")
    config.corruptions.severities = (1, 3)
    config.sweep.axes = (
        ("training.learning_rate", (8e-3, 1.2e-2, 1.6e-2)),
        ("seed", (0, 1)),
    )
    return config
