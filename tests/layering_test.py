"""Imports go down the list of layers, and never sideways."""

import sys
from pathlib import Path

import pytest

from tests import imports

# from the bottom to the top; components of one row never import each other
LAYERS = (
    ("base",),
    ("layers", "data"),
    ("models", "quantization"),
    ("measures",),
    ("training", "export"),
    ("study",),
    ("facade",),
    ("cli",),
)
BASE = ("compat", "config", "errors", "legacy_keras", "reading", "sharing")
CONFIGS_MAY_IMPORT = {"__future__", "ml_collections", "qgen_tf.config"}
DEVICE_SCRIPT = "export.run_on_device"
DEVICE_MAY_IMPORT = {"numpy", "ai_edge_litert", *sys.stdlib_module_names}


def _component(module):
    """Returns the component of a module, or None where no layer applies."""
    top, *rest = module.split(".")
    if top == "export":
        return "export"
    if top != "qgen_tf":
        return None
    if not rest:
        return "facade"
    return "base" if rest[0] in BASE else rest[0]


def _row(component):
    for row, components in enumerate(LAYERS):
        if component in components:
            return row
    raise ValueError(f"qgen_tf.{component} is in no layer of {__file__}")


def violations(root: Path):
    """Returns one line for each import that goes up or sideways."""
    known = imports.modules(root)
    lines = []
    for module, path in known.items():
        used = sorted(imports.imported(path, known))
        component = _component(module)
        if module.split(".")[0] == "configs":
            wrong = [name for name in used if name not in CONFIGS_MAY_IMPORT]
        elif module == DEVICE_SCRIPT:
            wrong = [name for name in used if name not in DEVICE_MAY_IMPORT]
        elif component in (None, "facade"):
            wrong = []
        else:
            row = _row(component)
            wrong = [
                name
                for name in used
                if _component(name) not in (None, component)
                and _row(_component(name)) >= row
            ]
        lines += [f"{module} must not import {name}" for name in wrong]
    return lines


def test_imports_go_down():
    assert violations(imports.REPOSITORY) == []


def test_every_component_is_checked():
    known = imports.modules()
    found = {_component(module) for module in known} - {None}
    assert {"base", "facade", "data", "quantization", "export"} <= found
    for component in found:
        assert _row(component) >= 0


def _write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "qgen_tf/models/nin.py",
            "from qgen_tf.quantization import quantize",
            "qgen_tf.models.nin must not import qgen_tf.quantization",
        ),
        (
            "qgen_tf/data/digits.py",
            "def f():\n    import qgen_tf.training.train",
            "qgen_tf.data.digits must not import qgen_tf.training",
        ),
        (
            "qgen_tf/measures/norms.py",
            "import typing\nif typing.TYPE_CHECKING:\n    import export",
            "qgen_tf.measures.norms must not import export",
        ),
        (
            "export/bundle.py",
            "from qgen_tf import training",
            "export.bundle must not import qgen_tf.training",
        ),
        (
            "qgen_tf/errors.py",
            "from qgen_tf import data",
            "qgen_tf.errors must not import qgen_tf.data",
        ),
        (
            "qgen_tf/study/trial.py",
            "from qgen_tf import quantize_model",
            "qgen_tf.study.trial must not import qgen_tf",
        ),
        (
            "export/run_on_device.py",
            "import json\nimport numpy\nfrom qgen_tf import errors",
            "export.run_on_device must not import qgen_tf.errors",
        ),
        (
            "export/run_on_device.py",
            "import tensorflow.lite",
            "export.run_on_device must not import tensorflow",
        ),
        (
            "configs/mine.py",
            "from qgen_tf.config import default_config\nimport numpy",
            "configs.mine must not import numpy",
        ),
    ],
)
def test_a_violation_is_found(tmp_path, file, text, line):
    packages = ("data", "models", "quantization", "training", "study")
    _write(
        tmp_path,
        {
            **{f"qgen_tf/{name}/__init__.py": "" for name in packages},
            "qgen_tf/__init__.py": "from qgen_tf import training",
            "qgen_tf/errors.py": "",
            "qgen_tf/config.py": "import ml_collections",
            "qgen_tf/models/vit.py": "from qgen_tf import data, errors",
            "qgen_tf/training/train.py": "from qgen_tf.models import vit",
            "qgen_tf/cli/train.py": "import qgen_tf",
            "export/__init__.py": "from qgen_tf import quantization",
        },
    )
    assert violations(tmp_path) == []
    _write(tmp_path, {file: text})
    assert [found for found in violations(tmp_path) if line in found]
    assert len(violations(tmp_path)) == 1


def test_a_relative_import_is_refused(tmp_path):
    _write(tmp_path, {"qgen_tf/errors.py": "from . import config"})
    with pytest.raises(ValueError, match="errors.py:1: relative import"):
        violations(tmp_path)


def test_an_unknown_component_is_refused(tmp_path):
    _write(tmp_path, {"qgen_tf/plumbing.py": ""})
    with pytest.raises(ValueError, match="qgen_tf.plumbing is in no layer"):
        violations(tmp_path)
