"""The stack that qgen_tf stands on: legacy Keras, and versions that fit.

`tensorflow-model-optimization` works on Keras 2 (`tf_keras`) only, so every
module here writes `from qgen_tf.compat import keras`, and users may do the
same. `python -m qgen_tf.compat` says which versions are installed and whether
they are supported.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import platform
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

from packaging import specifiers

from qgen_tf import errors

if TYPE_CHECKING:
    import tf_keras as keras

__all__ = ["SUPPORTED", "check_env", "keras", "keras_cv", "require_legacy"]

# distribution -> versions that were tried; setup.cfg says the same
SUPPORTED = {
    "python": ">=3.10,<3.14",
    "tensorflow": ">=2.20,<2.22",
    "tf-keras": ">=2.20,<2.22",
    "tensorflow-model-optimization": ">=0.8,<0.9",
    "keras-cv": ">=0.9,<0.10",
    "ai-edge-litert": ">=2.3,<3",
}


def __getattr__(name: str) -> Any:
    """Imports `keras`, that is `tf_keras`, when it is first asked for."""
    if name != "keras":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import tensorflow as tf
    import tf_keras

    if tf.keras.layers.Layer is not tf_keras.layers.Layer:
        raise errors.StackError(
            "tf.keras is not legacy Keras although qgen_tf was imported: "
            "leave TF_USE_LEGACY_KERAS=1 as qgen_tf set it."
        )
    globals()["keras"] = tf_keras
    return tf_keras


def keras_cv() -> types.ModuleType:
    """Returns the `keras_cv` package, built on legacy Keras.

    It is imported on the first call, without the line that it prints.

    Raises:
      errors.StackError: `keras_cv` cannot be imported.
    """
    __getattr__("keras")
    silence = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            warnings.simplefilter("ignore")
            import keras_cv as package
    except Exception as error:
        raise errors.StackError(
            f"keras_cv cannot be imported ({type(error).__name__}: {error}): "
            f"run `pip install 'keras-cv{SUPPORTED['keras-cv']}'`."
        ) from error
    return package


def require_legacy(model: Any) -> None:
    """Raises unless `model` is a model or layer of legacy Keras.

    Raises:
      errors.ModelError: it is of Keras 3, holds a model, or is no Keras object
        at all. The message names the module of its class and what to change.
    """
    legacy = __getattr__("keras")
    if isinstance(model, legacy.layers.Layer):  # models are layers
        return
    for cls in type(model).__mro__:
        if cls.__module__.split(".")[0] == "keras":
            raise errors.ModelError(
                f"{type(model).__name__} is a Keras 3 object (its class "
                f"{cls.__name__} is in {cls.__module__}), which qgen_tf "
                "cannot take: build it with `from qgen_tf.compat import keras` "
                "instead of `import keras`."
            )
    if isinstance(getattr(model, "model", None), legacy.Model):
        raise errors.ModelError(
            f"expected a model or layer of tf_keras, found a "
            f"{type(model).__module__}.{type(model).__name__}, which holds "
            "one: pass its `.model`."
        )
    raise errors.ModelError(
        f"expected a model or layer of tf_keras, found a "
        f"{type(model).__module__}.{type(model).__name__}: build it with "
        "`from qgen_tf.compat import keras`."
    )


def check_env() -> dict[str, str]:
    """Returns the installed version of each package in `SUPPORTED`.

    Raises:
      errors.StackError: a package is missing or its version was not tried
        with this release, or `tf.keras` is not legacy Keras.
    """
    versions = {}
    problems = []
    for name, supported in SUPPORTED.items():
        try:
            versions[name] = _version(name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is missing (supported: {supported})")
            continue
        if versions[name] not in specifiers.SpecifierSet(supported):
            problems.append(
                f"{name} {versions[name]} is unsupported "
                f"(supported: {supported})"
            )
    if problems:
        raise errors.StackError(
            "; ".join(problems) + ": install qgen_tf in a fresh environment "
            "with `pip install .`, which picks versions that fit."
        )
    __getattr__("keras")
    return versions


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    return importlib.metadata.version(name)


def main() -> int:
    """Prints the versions; the status is 2 when something is unsupported."""
    try:
        versions = check_env()
    except errors.StackError as error:
        print(error, file=sys.stderr)
        return 2
    for name, version in versions.items():
        print(f"{name:30} {version:8} supported: {SUPPORTED[name]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
