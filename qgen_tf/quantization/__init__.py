"""Quantization-aware training at any bits, and the network that it deploys."""

from qgen_tf.quantization.grids import ActivationQuantizer, WeightGrid
from qgen_tf.quantization.inference import InferenceModel, inference_model
from qgen_tf.quantization.quantize import calibrate, quantize_model
from qgen_tf.quantization.quantize_scheme import FLOAT_BITS, BitScheme
from qgen_tf.quantization.report import quantization_report

__all__ = [
    "FLOAT_BITS",
    "ActivationQuantizer",
    "BitScheme",
    "InferenceModel",
    "WeightGrid",
    "calibrate",
    "inference_model",
    "quantization_report",
    "quantize_model",
]
