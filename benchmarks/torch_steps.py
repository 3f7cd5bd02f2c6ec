"""Training steps of PyTorch and Brevitas models, for `qat_overhead`.

Run as `python -m benchmarks.torch_steps CONTENDER LIBRARY MODEL BATCH_SIZE
THREADS`, in an environment of its own: `pip install torch brevitas`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import step_worker

# stem width, then blocks of each stage; widths double from stage to stage
_SHAPES = {"resnet20": (16, (3, 3, 3)), "resnet18": (64, (2, 2, 2, 2))}
_NUM_CLASSES = 10
# Brevitas takes step sizes from statistics for 300 steps before it learns
# them; the warm-up is shorter.
_STATISTICS_STEPS = 2


def _float_layers() -> dict[str, Callable[..., nn.Module]]:
    return {
        "conv": nn.Conv2d,
        "linear": nn.Linear,
        "relu": nn.ReLU,
        "grid": nn.Identity,
        "input": nn.Identity,
    }


def _brevitas_layers(bits: int) -> dict[str, Callable[..., nn.Module]]:
    """Returns layers whose values stand on a grid where qgen_tf's do."""
    from brevitas import nn as qnn

    def activation(layer: Any, bits: int) -> Callable[[], nn.Module]:
        return lambda: layer(
            bit_width=bits, collect_stats_steps=_STATISTICS_STEPS
        )

    def weighted(layer: Any, bits: int) -> Callable[..., nn.Module]:
        return lambda *arguments, **settings: layer(
            *arguments, weight_bit_width=bits, **settings
        )

    return {
        "conv": weighted(qnn.QuantConv2d, bits),
        "linear": weighted(qnn.QuantLinear, 8),
        "relu": activation(qnn.QuantReLU, bits),
        "grid": activation(qnn.QuantIdentity, bits),
        "input": activation(qnn.QuantIdentity, 8),
    }


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, layers: Any, inputs: int, outputs: int, stride: int):
        super().__init__()
        conv = layers["conv"]
        self.body = nn.Sequential(
            conv(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            layers["relu"](),
            conv(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            layers["grid"](),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv(inputs, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
                layers["grid"](),
            )
        self.relu = layers["relu"]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def _resnet(layers: Any, width: int, stages: tuple[int, ...]) -> nn.Module:
    """Returns the network that `qgen_tf.models` has under the same name."""
    parts = [
        layers["input"](),
        layers["conv"](3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        layers["relu"](),
    ]
    inputs = width
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            outputs = width * 2**stage
            stride = 2 if stage > 0 and block == 0 else 1
            parts.append(_Block(layers, inputs, outputs, stride))
            inputs = outputs
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, layers["linear"](inputs, _NUM_CLASSES))


def main() -> None:
    """Serves the contender that the command line names."""
    contender, library, model_name, batch_size, threads = sys.argv[1:]
    importlib.import_module(library)
    torch.manual_seed(0)
    if int(threads):
        torch.set_num_threads(int(threads))
    layers = (
        _float_layers() if contender == "float" else _brevitas_layers(bits=4)
    )
    # the faster layout on a CPU
    layout = {"memory_format": torch.channels_last}
    model = _resnet(layers, *_SHAPES[model_name]).to(**layout)
    images = torch.randn(int(batch_size), 3, 32, 32).to(**layout)
    labels = torch.randint(_NUM_CLASSES, (len(images),))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    step_worker.serve(step)


if __name__ == "__main__":
    main()
