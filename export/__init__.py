"""From a deployed network to a verified TensorFlow Lite file.

Importing this package is cheap: what runs a file needs no TensorFlow, and a
module is loaded when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.divergence import explain as explain
    from export.flatbuffer import check as check
    from export.interpreter import Interpreter as Interpreter
    from export.tflite import convert as convert
    from export.verification import Verification as Verification
    from export.verification import verify as verify

# public name -> module that defines it
_PUBLIC = {
    "Interpreter": "interpreter",
    "Verification": "verification",
    "check": "flatbuffer",
    "convert": "tflite",
    "explain": "divergence",
    "verify": "verification",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
