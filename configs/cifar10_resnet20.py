"""ResNet-20 on CIFAR-10, scaled down to a CPU: what quantization costs.

The float model and its W8A8, W4A4 and W2A2 twins. Recipe after Esser et al.
2020 (LSQ, arXiv 1902.08153), with AdamW for SGD, far fewer epochs, and the
float model as a teacher.

As there, bits are those of the inputs and the weights of convolutions: the two
terms of an addition, which the paper leaves float, have 8 bits; the sum, which
the next convolution reads, has the bits of the twin.

    python -m benchmarks.qat_accuracy --config=cifar10_resnet20 --workdir=runs

Parameters: 274,042. Cost: some 30 minutes a seed on 2 CPU cores. Results:
docs/results.md.

Full scale: --config.dataset.num_train=0 --config.training.epochs=200
--config.quantization.epochs=90 on a GPU; published float accuracy 91.25 %.
"""

from __future__ import annotations

import ml_collections

from qgen_tf.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = default_config()
    config.name = "cifar10_resnet20"
    config.dataset.name = "cifar10"
    config.dataset.image_size = 32  # pixels a side
    config.dataset.num_train = 16_000  # examples
    config.dataset.num_test = 10_000  # examples
    config.dataset.crop_padding = 4  # pixels
    config.dataset.flip = True
    config.model = {"name": "resnet20", "width": 16, "depth": 20}
    config.training.epochs = 12
    config.training.batch_size = 128
    config.training.learning_rate = 4e-3
    config.training.weight_decay = 1e-3
    config.quantization.epochs = 8
    config.quantization.learning_rate = 4e-3
    config.quantization.distillation = 0.5
    config.quantization.overrides = (
        ("*_2_bn", None, 8),  # the branch of a block, before the addition
        ("*_0_bn", None, 8),  # its projected shortcut
    )
    config.twins = ((8, 8), (4, 4), (2, 2))
    return config
