"""qgen_tf: does the quantized model generalize as well as the trained one?

Importing this package is cheap: it guarantees legacy Keras behind `tf.keras`
and loads the rest, TensorFlow included, when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qgen_tf import legacy_keras as _legacy_keras

if TYPE_CHECKING:
    from qgen_tf import data as data
    from qgen_tf import measures as measures
    from qgen_tf import models as models
    from qgen_tf import quantization as quantization
    from qgen_tf import study as study
    from qgen_tf import training as training
    from qgen_tf.measures import suggest_bits as suggest_bits
    from qgen_tf.quantization import BitScheme as BitScheme
    from qgen_tf.quantization import calibrate as calibrate
    from qgen_tf.quantization import inference_model as inference_model
    from qgen_tf.quantization import quantization_report as quantization_report
    from qgen_tf.quantization import quantize_model as quantize_model
    from qgen_tf.training import CosineRise as CosineRise
    from qgen_tf.training import QATModel as QATModel
    from qgen_tf.training import load_model as load_model
    from qgen_tf.training import reestimate_norms as reestimate_norms

__version__ = "0.1.0"

# public name -> module that defines it, or None for a subpackage
_PUBLIC = {
    "BitScheme": "quantization",
    "CosineRise": "training",
    "QATModel": "training",
    "calibrate": "quantization",
    "inference_model": "quantization",
    "load_model": "training",
    "quantization_report": "quantization",
    "quantize_model": "quantization",
    "reestimate_norms": "training",
    "suggest_bits": "measures",
    "data": None,
    "measures": None,
    "models": None,
    "quantization": None,
    "study": None,
    "training": None,
}

__all__ = sorted(_PUBLIC)

_legacy_keras.guarantee()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name] or name}")
    return getattr(module, name) if _PUBLIC[name] else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
