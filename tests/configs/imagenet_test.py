"""The configs of ImageNet, reduced, go from files of images to a device."""

import importlib
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import training
from qgen_tf.cli import program
from qgen_tf.config import check_fields
from qgen_tf.study import exporting

# arguments that make a model small, for images of 32 pixels
REDUCED = {
    "image_folder": {"width": 4},
    "imagenet_deit_tiny": {
        "patch_size": 8,
        "width": 16,
        "depth": 1,
        "num_heads": 2,
    },
    "imagenet_mobilenet_v2": {"alpha": 0.1},
    "imagenet_resnet18": {"width": 4},
    "imagenet_resnet50": {"width": 4},
    "imagenet_swin_tiny": {
        "width": 8,
        "depths": (2, 1),
        "num_heads": (1, 2),
        "window_size": 4,
    },
}
# what stands for the others, which take minutes together; see --full
_ALWAYS = ("imagenet_deit_tiny",)
_PER_CLASS = {"train": 8, "validation": 4}


def _config(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes JPEG files of two classes, bright above and bright below."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in _PER_CLASS.items():
        for name, gradient in (("above", -1.0), ("below", 1.0)):
            path = root / split / name
            path.mkdir(parents=True)
            for index in range(count):
                height, width = generator.integers(40, 60, 2)
                rows = np.linspace(-1, 1, height)[:, None, None]
                image = 128 + 100 * gradient * rows
                noise = generator.normal(0, 20, (height, width, 3))
                image = np.clip(image + noise, 0, 255).astype(np.uint8)
                content = tf.io.encode_jpeg(image).numpy()
                (path / f"{index}.JPEG").write_bytes(content)
    return root


def _reduced(name, folder):
    config = _config(name)
    config.dataset.name = f"image_folder:{folder}"
    config.dataset.image_size = 32
    config.model = {**config.model, **REDUCED[name]}
    config.training.update(
        {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    )
    config.quantization.update({"epochs": 1, "calibration_examples": 16})
    return config


def test_every_config_of_this_kind_is_tested():
    names = {path.stem for path in program.CONFIGS.glob("image*.py")}
    assert names == REDUCED.keys()


@pytest.mark.parametrize("name", REDUCED)
def test_notes_name_fields_that_there_are(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    check_fields(config)
    training.check(config)
    assert config.name == name
    flags = re.findall(r"--config\.([a-z_.]+)=", module.__doc__)
    assert flags
    for flag in flags:
        field = config
        for part in flag.split("."):
            field = field[part]  # raises where there is none


@pytest.mark.slow
@pytest.mark.parametrize("name", REDUCED)
def test_from_files_to_a_verified_device(name, folder, tmp_path, request):
    if name not in _ALWAYS and not request.config.getoption("full"):
        pytest.skip("takes a minute: run with --full")
    config = training.with_bits(_reduced(name, folder), 4, 8)
    if not request.config.getoption("full"):
        config.dataset.rand_augment = 0.0  # has tests of its own
    run = training.train(config, tmp_path)
    record = exporting.verify(run.path)
    assert record["train"]["num_examples"] == 16
    assert record["test"]["num_examples"] == 8
    assert math.isfinite(record["train"]["loss"])
    assert record["test"]["max_steps_deployed"] <= 1.01
    assert record["float_operators"] == []
