"""Legacy Keras behind `tf.keras`, whatever the order of imports.

TensorFlow decides between Keras 3 and `tf_keras` twice, by two mechanisms:

- the attribute `tf.keras` is a lazy loader, which reads
  `TF_USE_LEGACY_KERAS` when it is touched for the first time;
- `import tensorflow.keras` walks `tensorflow.__path__`, which was laid out
  from the same variable when TensorFlow itself was imported.

A variable that is set between the two leaves them at odds, and `keras_cv`,
which uses both, fails to import. `guarantee` makes them agree.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types

from qgen_tf import errors

_VARIABLE = "TF_USE_LEGACY_KERAS"
_YES = ("1", "true", "True")  # what TensorFlow takes for yes


def guarantee() -> None:
    """Makes every later `tf.keras` and `keras_cv` resolve to `tf_keras`.

    Imports nothing heavy; `import qgen_tf` calls it.

    Raises:
      errors.StackError: it is too late, the user has asked for Keras 3, or
        `tf_keras` is not installed.
    """
    value = os.environ.get(_VARIABLE) or "1"
    if value not in _YES:
        raise errors.StackError(
            f"{_VARIABLE}={value} asks for Keras 3, but qgen_tf needs legacy "
            f"Keras: unset {_VARIABLE} or set it to 1."
        )
    spec = importlib.util.find_spec("tf_keras")
    if spec is None or spec.origin is None:
        raise errors.StackError(
            "tf_keras (legacy Keras) is not installed: run `pip install "
            "tf-keras` with the version of your TensorFlow."
        )
    os.environ[_VARIABLE] = value
    if "tensorflow" in sys.modules:
        tensorflow = sys.modules["tensorflow"]
        _require_not_keras_3(tensorflow)
        folder = os.path.join(os.path.dirname(spec.origin), "api", "_v2")
        tensorflow.__path__.insert(0, folder)


def _require_not_keras_3(tensorflow: types.ModuleType) -> None:
    """Raises if the process is already bound to Keras 3."""
    keras = vars(tensorflow).get("keras")
    if type(keras).__name__ == "KerasLazyLoader" or keras is None:
        return  # not touched yet: it will read the variable
    if not keras.layers.Layer.__module__.startswith("keras."):
        return
    culprit = "keras_cv" if "keras_cv" in sys.modules else "tf.keras"
    raise errors.StackError(
        f"{culprit} was used before `import qgen_tf` and is bound to Keras 3 "
        f"for this process: import qgen_tf before {culprit}, or set "
        f"{_VARIABLE}=1 before starting Python."
    )
