"""Quantization-aware training at any bits, and the network that it deploys."""

from qgen_tf.quantization.alignment import align
from qgen_tf.quantization.calibration import calibrate
from qgen_tf.quantization.grids import ActivationGrid, WeightGrid
from qgen_tf.quantization.inference import InferenceModel, inference_model
from qgen_tf.quantization.loss_scale import loss_scale
from qgen_tf.quantization.quantize import quantize_model
from qgen_tf.quantization.quantize_scheme import FLOAT_BITS, BitScheme
from qgen_tf.quantization.quantizers import QUANTIZERS
from qgen_tf.quantization.report import quantization_report

__all__ = [
    "FLOAT_BITS",
    "QUANTIZERS",
    "ActivationGrid",
    "BitScheme",
    "InferenceModel",
    "WeightGrid",
    "align",
    "calibrate",
    "inference_model",
    "loss_scale",
    "quantization_report",
    "quantize_model",
]
