"""Whether what is to be exported is a deployed network."""

from __future__ import annotations

from qgen_tf import errors
from qgen_tf.quantization.inference import InferenceModel


def require_deployed(network: InferenceModel) -> None:
    """Raises an ExportError unless the network is a deployed one."""
    if not isinstance(network, InferenceModel):
        raise errors.ExportError(
            f"the network must be a deployed one, not {type(network).__name__}"
            ": pass qgen_tf.inference_model(model)."
        )
