"""Every field of a config, its default, unit and meaning.

A lab note in `configs/` starts from `default_config()` and states what it
changes. The `ConfigDict` is locked: a field that does not exist is an error.
"""

from __future__ import annotations

import functools
import re
import reprlib
import sys
from typing import Any

import ml_collections

from qgen_tf import errors

_TYPES: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (float, int),
    str: (str,),
    tuple: (tuple, list),
}
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a tuple",
}
# of these tuples each item is of one type
_ITEMS = {
    "measures.names": str,
    "corruptions.kinds": str,
    "corruptions.severities": int,
}
_LARGEST = {int: 2**31 - 1, float: sys.float_info.max}
# what is larger asks for more memory or time than there is
_LIMITS = {"dataset.image_size": 4096, "model": 2**14, "model.depth": 1024}
_NAME = re.compile(r"\w[\w.+=@ -]{0,98}")


def default_config() -> ml_collections.ConfigDict:
    """Returns a config with every field set; needs no TensorFlow to read."""
    return ml_collections.ConfigDict(
        {
            "name": "unnamed",  # prefix of the run directories
            "seed": 0,  # initial weights, data order, augmentation
            "dataset": {
                # digits, cifar10, cifar100, any tfds name, or
                # image_folder:<path>
                "name": "digits",
                "image_size": 16,  # pixels a side; images are resized to it
                # side of the square in the middle that is resized to
                # evaluate, in units of the shorter side; 0 = whole image
                "center_crop": 0.0,
                # auto (of the data set), imagenet, symmetric ([-1, 1]), caffe
                "normalization": "auto",
                "num_train": 0,  # examples, a fixed random subset; 0 = all
                "num_test": 0,  # examples, a fixed random subset; 0 = all
                # smallest share of the area of a random window that is resized
                # to train on; 0 = off
                "random_resized_crop": 0.0,
                "crop_padding": 0,  # pixels; random crop after padding
                "flip": False,  # random horizontal flip
                "rand_augment": 0.0,  # magnitude in [0, 1]; 0 = off
                "mixup": 0.0,  # alpha of the Beta distribution; 0 = off
                "cutmix": 0.0,  # alpha of the Beta distribution; 0 = off
            },
            # name and keyword arguments of a function in qgen_tf.models
            "model": {"name": "nin", "width": 32, "depth": 3, "dropout": 0.0},
            # the float model
            "training": {
                # path of a file of weights to start from, .safetensors, .npz
                # or .weights.h5; "imagenet" for those of tf_keras.applications;
                # "" starts from scratch
                "pretrained": "",
                "epochs": 20,
                "batch_size": 64,
                "optimizer": "adamw",  # adamw or sgd (momentum 0.9)
                "learning_rate": 2e-3,  # peak; cosine decay to 0
                "warmup_epochs": 1.0,
                "weight_decay": 1e-4,  # kernels only, decoupled
                "label_smoothing": 0.0,
                # loss of the training set, in nats, from which a float model
                # or a twin is trained no further; 0 = off
                "stop_at_loss": 0.0,
                # of the layers, here and in the twins: mixed_bfloat16 or
                # mixed_float16; weights and quantizers stay float32
                "mixed_precision": "float32",
            },
            # the quantized twin, fine-tuned from the float model of this seed
            "quantization": {
                # lsq, lsq_plus, pact, dorefa, ewgs or minmax
                "quantizer": "lsq",
                "weight_bits": 32,  # 1..8; 32 leaves weights float
                "activation_bits": 32,  # 2..8; 32 leaves activations float
                "first_last_bits": 8,  # first and last layer, both kinds
                "per_axis": True,  # one step a channel (conv), else a tensor
                "per_axis_dense": False,  # the same of dense layers
                # (pattern of layer names, weight_bits, activation_bits); the
                # first that matches decides. A model of 32 and 32 bits is
                # float all the same.
                "overrides": (),
                "calibration_examples": 512,  # for the activation steps
                "epochs": 8,
                "learning_rate": 5e-4,
                "step_learning_rate": 1.0,  # of step sizes, in units of that
                # share of the float model's logits in the loss, in [0, 1]
                "distillation": 0.0,
                "temperature": 4.0,  # of the distillation
                # weight, at the end of training, of the squared distances of
                # the weights from the middle of their bins
                "dampening": 0.0,
                # examples to average BatchNorm statistics of after training,
                # augmented as in training; 0 keeps the moving averages
                "reestimate_norms": 0,
            },
            # (weight_bits, activation_bits) of the twins that a sweep trains
            "twins": ((8, 8), (4, 8), (2, 8)),
            "measures": {
                # of qgen_tf.measures.MEASURES, and "loss_rises"; or "all"
                "names": ("average_sharpness", "pac_bayes_sigma"),
                "num_examples": 2048,  # of the training set; 0 = all
                "seed": 0,  # of noise and bootstrap
                "point": "deployed",  # or latent: under a live quantizer
                # keyword arguments of measures; others have their defaults
                "average_sharpness": {
                    "sigma": 0.05,  # standard deviation of the noise
                    "num_samples": 80,  # noise draws, each with both signs
                    "adaptive": True,  # noise in units of |w|
                },
                "pac_bayes_sigma": {
                    "num_samples": 10,  # noise draws at least
                    "max_samples": 100,  # at most
                    "relative_error": 0.03,  # standard error that is enough
                    "adaptive": True,  # noise in units of |w|
                    "target_drop": 0.1,  # share of examples newly wrong
                },
                "l2_sharpness": {
                    "rho": 0.25,  # radius of the ball
                    "num_steps": 20,  # of the ascent
                    "num_restarts": 1,  # starts of the ascent
                },
                "linf_sharpness": {
                    "rho": 4e-3,  # largest change of a weight
                    "num_steps": 20,  # of the ascent
                    "num_restarts": 1,  # starts of the ascent
                },
                "sam_sharpness": {"rho": 0.05},  # length of the step
                "hessian_trace": {"num_probes": 8},  # random vectors
                "margin_percentile": {"percentile": 10.0},
            },
            # corrupted test sets, on which the gap is measured as well
            "corruptions": {
                # keys of qgen_tf.data.corruptions.CORRUPTIONS; of cifar10 at 32
                # pixels, also kinds of tfds' cifar10_corrupted that are there
                "kinds": (),
                "severities": (1, 3, 5),  # of each kind, 1..5
                "num_examples": 0,  # of the test set, the first; 0 = all
                "seed": 0,  # of what is drawn for the images
            },
            # the float models of a sweep; each has the twins above
            "sweep": {
                # (field of this config, its values): all combinations
                "axes": (),
                # of the combinations in random order, the part that is run:
                # how many are left out, and how many come then; 0 = all
                "first": 0,
                "num_combinations": 0,
                "seed": 0,  # of the order
            },
        }
    )


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Raises a ConfigError unless a config has every field and no other.

    The arguments of `model` depend on the model: which there are is checked
    when it is built. Values are checked as `check_values` does.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        raise errors.ConfigError(
            f"the config is {type(config).__name__}: return what "
            "qgen_tf.config.default_config() returns, with your changes."
        )
    wanted, found = (
        {path for path in each if not _is_argument(path)}
        for each in (_defaults(), _flat(config))
    )
    if missing := sorted(wanted - found):
        raise errors.ConfigError(
            f"the config lacks {missing}: start it from "
            "qgen_tf.config.default_config()."
        )
    if unknown := sorted(found - wanted):
        raise errors.ConfigError(
            f"the config has unknown fields {unknown}: remove them."
        )
    check_values(config)


def check_values(config: ml_collections.ConfigDict) -> None:
    """Raises a ConfigError for a value that no stage could take.

    A value has the type of its default; a number is finite, not negative, and
    not so large that memory or time would run out. Narrower ranges are known
    to the stages. Fields that have no default, but those of `model`, are not
    looked at.
    """
    defaults, values = _defaults(), _flat(config)
    for path, default in defaults.items():
        is_there = path in values or _is_argument(path)
        if not is_there and path.split(".")[0] in config:
            raise errors.ConfigError(
                f"{path} is missing, or has fields of its own: write "
                f"{_WORDS[type(default)]}."
            )
    for path, value in values.items():
        if _is_argument(path):
            _require_argument(path, value)
        elif path in defaults and (path, value) != ("measures.names", "all"):
            _require(path, value, type(defaults[path]))
            for item in value if path in _ITEMS else ():
                _require(path, item, _ITEMS[path])
    if not _NAME.fullmatch(config.get("name", "unnamed")):
        raise errors.ConfigError(
            f"name is {reprlib.repr(config.name)}: folders are called after "
            "it; write at most 99 letters, digits, spaces and signs of "
            "-_.+=@, a letter or digit first."
        )


@functools.cache
def _defaults() -> dict[str, Any]:
    return _flat(default_config())


def _is_argument(path: str) -> bool:
    return path.startswith("model.") and path != "model.name"


def _flat(
    config: ml_collections.ConfigDict, prefix: str = ""
) -> dict[str, Any]:
    """Returns the path of each field, "dataset.name", and its value."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def _require_argument(path: str, value: Any) -> None:
    """Raises a ConfigError for what is no argument of any model."""
    if isinstance(value, tuple | list):
        for part in value:
            _require_argument(path, part)
    elif not isinstance(value, bool | str):
        _require(path, value, int if isinstance(value, int) else float)


def _require(path: str, value: Any, kind: type) -> None:
    """Raises a ConfigError unless a value is of a kind, and within bounds."""
    kinds, bounds = _TYPES[kind], ""
    allowed = isinstance(value, kinds)
    if kind in (int, float):
        section = path.split(".")[0]
        most = _LIMITS.get(path, _LIMITS.get(section, _LARGEST[kind]))
        allowed = allowed and not isinstance(value, bool) and 0 <= value <= most
        bounds = f" from 0 to {most}"
        if most == sys.float_info.max:
            bounds = ", finite and not negative"
    if not allowed:
        raise errors.ConfigError(
            f"{path} is {reprlib.repr(value)}: write {_WORDS[kind]}{bounds}."
        )
