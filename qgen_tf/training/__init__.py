"""Training into run directories."""

from qgen_tf.training.locks import lock
from qgen_tf.training.norms import reestimate_norms
from qgen_tf.training.qat_model import CosineRise, QATModel
from qgen_tf.training.run_directory import (
    TRAINED_FILE,
    RunDirectory,
    atomic_path,
    float_config,
    is_finished,
    is_quantized,
    label,
    run_path,
    with_bits,
)
from qgen_tf.training.saved_model import load_model
from qgen_tf.training.strategies import get_strategy
from qgen_tf.training.train import check, make_deterministic, train

__all__ = [
    "TRAINED_FILE",
    "CosineRise",
    "QATModel",
    "RunDirectory",
    "atomic_path",
    "check",
    "float_config",
    "get_strategy",
    "is_finished",
    "is_quantized",
    "label",
    "load_model",
    "lock",
    "make_deterministic",
    "reestimate_norms",
    "run_path",
    "train",
    "with_bits",
]
