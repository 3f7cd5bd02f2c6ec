"""From a deployed network to a verified TensorFlow Lite file."""

from export.flatbuffer import check
from export.interpreter import Interpreter
from export.tflite import convert
from export.verify import Verification, verify

__all__ = ["Interpreter", "Verification", "check", "convert", "verify"]
