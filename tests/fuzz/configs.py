"""Damaged configs, as far as `qgen-train` and `qgen-sweep` look before work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np

from qgen_tf import data, models, training
from qgen_tf.config import check_fields
from qgen_tf.quantization import quantize_model
from qgen_tf.study import design
from qgen_tf.training import optimizers
from qgen_tf.training.saved_model import scheme
from tests import tiny
from tests.fuzz import damage

_MODELS = (
    {"name": "nin", "width": 4, "depth": 1, "dropout": 0.1},
    {"name": "nin", "width": 4, "depth": 2, "dropout": 0.0},
    {"name": "resnet20", "width": 4, "depth": 8},
    {"name": "cifar_vit", "width": 8, "depth": 1, "num_heads": 2},
    {"name": "mobilenet_v2", "alpha": 0.1},
)
STEPS = ("fields", "design", "data", "model", "optimizer", "scheme")
CHAINED = True


def make(generator: np.random.Generator) -> tuple[str, Any]:
    """Returns (what it is, a damaged config)."""
    config = tiny.config()
    config.model = damage.pick(generator, _MODELS)
    config.quantization.weight_bits = damage.pick(generator, (1, 4, 32))
    config.quantization.activation_bits = damage.pick(generator, (8, 32))
    config.quantization.overrides = [["block0_*", 4, None]]
    config.sweep.axes = [["seed", [0, 1]], ["training.weight_decay", [0, 0.1]]]
    config.corruptions.kinds = ["fog"]
    content = _lists(config.to_dict())
    for _ in range(generator.integers(1, 4)):
        content = damage.tree(generator, content)
    return repr(content), content


def _lists(content: Any) -> Any:
    """Returns the content with lists, which can be changed, for tuples."""
    if isinstance(content, dict):
        return {name: _lists(value) for name, value in content.items()}
    if isinstance(content, tuple | list):
        return [_lists(value) for value in content]
    return content


@contextlib.contextmanager
def trying() -> Iterator[Callable[[Any], dict[str, Callable[[], Any]]]]:
    """Gives what turns a damaged config into the steps that read it."""
    yield _steps


def _steps(content: Any) -> dict[str, Callable[[], Any]]:
    try:
        config = ml_collections.ConfigDict(content)
    except Exception:  # it cannot be written down as a config
        config = content
    known: dict[str, Any] = {}

    def load() -> None:
        known["splits"] = data.load(config.dataset)

    def build() -> None:
        splits = known["splits"]
        known["model"] = models.build(
            config.model, splits.image_shape, splits.num_classes
        )
        models.start_from(
            known["model"],
            config.training.pretrained,
            config.dataset.normalization,
        )

    def optimize() -> None:
        steps = known["splits"].steps_per_epoch(config.training.batch_size)
        optimizers.build(
            config.training,
            learning_rate=config.training.learning_rate,
            steps=config.training.epochs * steps,
            warmup_steps=round(config.training.warmup_epochs * steps),
        )

    def quantize() -> None:
        if training.is_quantized(config):
            quantize_model(known["model"], scheme(config))

    functions = (
        lambda: check_fields(config),
        lambda: design.trials(config, "runs"),
        *(load, build, optimize, quantize),
    )
    return dict(zip(STEPS, functions, strict=True))
