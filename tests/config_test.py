"""What a config may hold."""

import importlib
import math
import pathlib

import ml_collections
import pytest

from qgen_tf import config as fields
from qgen_tf import errors

_NOTES = sorted(
    path.stem
    for path in pathlib.Path(fields.__file__).parents[1].glob("configs/*.py")
    if path.stem != "__init__"
)


def _with(path, value):
    """Returns the default config, as one that somebody else has written."""
    content = fields.default_config().to_dict()
    part = content
    *sections, name = path.split(".")
    for section in sections:
        part = part[section]
    part[name] = value
    return ml_collections.ConfigDict(content)


def _told(message):
    return pytest.raises(
        errors.ConfigError, match=rf"^(?!.*\n).*{message}.*\.$"
    )


@pytest.mark.parametrize("note", _NOTES)
def test_notes_have_every_field(note):
    config = importlib.import_module(f"configs.{note}").get_config()
    fields.check_fields(config)


@pytest.mark.parametrize("given", [None, {}, "quickstart", 3])
def test_what_is_no_config(given):
    kind = type(given).__name__
    with _told(f"the config is {kind}: return what"):
        fields.check_fields(given)


def test_fields_that_are_missing_or_unknown():
    config = fields.default_config().unlock()
    del config.dataset.name
    with _told(r"lacks \['dataset.name'\]: start it from"):
        fields.check_fields(config)
    with _told(r"unknown fields \['training.speed'\]: remove"):
        fields.check_fields(_with("training.speed", 1))
    with _told(r"lacks \['model.name'\]"):
        fields.check_fields(_with("model", {"width": 3}))
    with _told(r"lacks \['model.name'\]"):
        fields.check_fields(_with("model", None))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", "1", "seed is '1': write a whole number from 0 to 2147483647"),
        ("seed", 1.0, "seed is 1.0: write a whole number"),
        ("seed", True, "seed is True: write a whole number"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**31, "seed is 2147483648"),
        ("training.epochs", None, "training.epochs is None"),
        ("training.learning_rate", "a", "is 'a': write a number, finite"),
        ("training.learning_rate", math.nan, "is nan: write a number, finite"),
        ("training.learning_rate", math.inf, "learning_rate is inf"),
        ("training.learning_rate", 10**400, "learning_rate is 1000"),
        ("training.weight_decay", -1e-9, "weight_decay is -1e-09"),
        ("dataset.flip", 1, "dataset.flip is 1: write True or False"),
        ("dataset.name", None, "dataset.name is None: write a text"),
        ("dataset.image_size", 5000, "image_size is 5000: .* from 0 to 4096"),
        ("model.width", 10**9, "model.width is 1000000000: .* to 16384"),
        ("model.depth", 2000, "model.depth is 2000: .* from 0 to 1024"),
        ("model.alpha", math.nan, "model.alpha is nan: .* from 0 to 16384"),
        ("model.sizes", (4, None), "model.sizes is None"),
        ("twins", 8, "twins is 8: write a tuple"),
        ("quantization.overrides", "conv*", r"overrides is 'conv\*'"),
        ("measures.names", "pac_bayes_sigma", "names is 'pac_bayes_sigma': wr"),
        (
            "corruptions.kinds",
            ((),),
            r"kinds is \(\): write a text",
        ),
        ("corruptions.severities", ("1",), "severities is '1': write a whole"),
        ("name", "../elsewhere", "name is '../elsewhere': folders are called"),
        ("name", "a/b", "name is 'a/b'"),
        ("name", "..", r"name is '\.\.'"),
        ("name", "", "name is ''"),
        ("name", "two\nlines", r"name is 'two\\nlines'"),
        ("name", "x" * 100, "name is 'xxx"),
        ("name", 3, "name is 3: write a text"),
    ],
)
def test_values_that_no_stage_could_take(path, value, message):
    with _told(message):
        fields.check_fields(_with(path, value))


@pytest.mark.parametrize("value", [{}, {"alpha": 0.5}])
def test_fields_in_the_place_of_a_value(value):
    with _told("dataset.mixup is missing, or has fields .*: write a number"):
        fields.check_values(_with("dataset.mixup", value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.learning_rate", 1),
        ("training.learning_rate", 1e20),
        ("twins", [[8, 8]]),
        ("measures.names", "all"),
        ("model.stem", "cifar"),
        ("model.bias", False),
        ("model.sizes", (4, [8, 8.5])),
        ("name", "größe_1.5+x=y@z-a b"),
    ],
)
def test_values_that_may_be(path, value):
    fields.check_fields(_with(path, value))
