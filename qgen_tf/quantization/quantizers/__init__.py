"""Quantizers by name: how step sizes are found, and what gradients pass."""

from __future__ import annotations

import dataclasses

from qgen_tf.quantization.quantizers.base import (
    ActivationQuantizer,
    WeightQuantizer,
    allow_uncalibrated,
)
from qgen_tf.quantization.quantizers.dorefa import (
    DoReFaActivationQuantizer,
    DoReFaWeightQuantizer,
)
from qgen_tf.quantization.quantizers.ewgs import (
    EWGSActivationQuantizer,
    EWGSWeightQuantizer,
)
from qgen_tf.quantization.quantizers.fixed import (
    CalibratedActivationQuantizer,
    FixedActivationQuantizer,
)
from qgen_tf.quantization.quantizers.lsq import (
    LSQActivationQuantizer,
    LSQPlusActivationQuantizer,
    LSQPlusWeightQuantizer,
    LSQWeightQuantizer,
)
from qgen_tf.quantization.quantizers.minmax import (
    MinMaxActivationQuantizer,
    MinMaxWeightQuantizer,
)
from qgen_tf.quantization.quantizers.observer import Observer
from qgen_tf.quantization.quantizers.pact import PACTActivationQuantizer

__all__ = [
    "QUANTIZERS",
    "ActivationQuantizer",
    "CalibratedActivationQuantizer",
    "DoReFaActivationQuantizer",
    "DoReFaWeightQuantizer",
    "EWGSActivationQuantizer",
    "EWGSWeightQuantizer",
    "Family",
    "FixedActivationQuantizer",
    "LSQActivationQuantizer",
    "LSQPlusActivationQuantizer",
    "LSQPlusWeightQuantizer",
    "LSQWeightQuantizer",
    "MinMaxActivationQuantizer",
    "MinMaxWeightQuantizer",
    "Observer",
    "PACTActivationQuantizer",
    "WeightQuantizer",
    "allow_uncalibrated",
]


@dataclasses.dataclass(frozen=True)
class Family:
    """The quantizers of one method.

    Attributes:
      weights: class of its weight quantizer.
      activations: class of its activation quantizer.
      inputs: class of the quantizer of what the model reads, at 8 bits. These
        are data, not activations: their range is known when they are seen, and
        a step size that trains would cost a training step the gradient of the
        first layer in its inputs.
    """

    weights: type[WeightQuantizer]
    activations: type[ActivationQuantizer]
    inputs: type[ActivationQuantizer] = CalibratedActivationQuantizer


QUANTIZERS: dict[str, Family] = {
    "lsq": Family(LSQWeightQuantizer, LSQActivationQuantizer),
    "lsq_plus": Family(
        LSQPlusWeightQuantizer,
        LSQPlusActivationQuantizer,
        inputs=LSQPlusActivationQuantizer,  # for its zero point
    ),
    # PACT takes the weights of DoReFa (Choi et al. 2018, section 5)
    "pact": Family(DoReFaWeightQuantizer, PACTActivationQuantizer),
    "dorefa": Family(DoReFaWeightQuantizer, DoReFaActivationQuantizer),
    "ewgs": Family(EWGSWeightQuantizer, EWGSActivationQuantizer),
    "minmax": Family(
        MinMaxWeightQuantizer,
        MinMaxActivationQuantizer,
        inputs=MinMaxActivationQuantizer,  # likewise
    ),
}
