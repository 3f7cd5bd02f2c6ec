"""Runs a TensorFlow Lite file over many examples."""

from __future__ import annotations

import os

import numpy as np
from ai_edge_litert import interpreter as litert

from export.weights import expand
from qgen_tf import errors

BATCH_SIZE = 64


class Interpreter:
    """A TensorFlow Lite file with one input and one output.

    Examples go through in batches, on all cores; the last batch is padded so
    that memory is planned once. Results do not depend on the batch size.

    Attributes:
      output_step_size: scale of an integer output, or None if it is float.
    """

    def __init__(
        self,
        content: bytes,
        *,
        batch_size: int = BATCH_SIZE,
        num_threads: int | None = None,
        expand_int4: bool = False,
    ):
        """Loads a file.

        Args:
          content: of the file.
          batch_size: examples a call.
          num_threads: None for all cores.
          expand_int4: whether weights of 4 bits are expanded to 8 in memory.
            As they are, each convolution rounds values up to one step off,
            which adds up to many over a network whose activations have few
            bits.

        Raises:
          ExportError: the runtime cannot run the file.
        """
        self._batch_size = batch_size
        try:
            self._runtime = litert.Interpreter(
                model_content=expand(content) if expand_int4 else content,
                num_threads=num_threads or os.cpu_count(),
            )
            (details,) = self._runtime.get_input_details()
            shape = (batch_size, *details["shape"][1:])
            self._runtime.resize_tensor_input(details["index"], shape)
            self._runtime.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise errors.ExportError(
                f"the runtime cannot run this file: {error}"
            ) from error
        (self._input,) = self._runtime.get_input_details()
        (self._output,) = self._runtime.get_output_details()
        scale, _ = self._output["quantization"]
        self.output_step_size = float(scale) or None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 logits [examples, classes] of float32 images."""
        outputs = [
            self._invoke(images[start : start + self._batch_size])
            for start in range(0, len(images), self._batch_size)
        ]
        return np.concatenate(outputs)

    def _invoke(self, images: np.ndarray) -> np.ndarray:
        batch = np.zeros(self._input["shape"], self._input["dtype"])
        batch[: len(images)] = _to_integers(images, self._input)
        self._runtime.set_tensor(self._input["index"], batch)
        self._runtime.invoke()
        outputs = self._runtime.get_tensor(self._output["index"])
        return _to_floats(outputs[: len(images)], self._output)


def _to_integers(values: np.ndarray, details: dict) -> np.ndarray:
    """Rounds to the grid of an integer tensor; floats stay as they are."""
    dtype = details["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return values
    scale, zero_point = details["quantization"]
    limits = np.iinfo(dtype)
    levels = np.rint(values / np.float32(scale)) + zero_point
    return np.clip(levels, limits.min, limits.max).astype(dtype)


def _to_floats(levels: np.ndarray, details: dict) -> np.ndarray:
    """Inverts `_to_integers`."""
    if not np.issubdtype(details["dtype"], np.integer):
        return levels
    scale, zero_point = details["quantization"]
    return (levels.astype(np.float32) - zero_point) * np.float32(scale)
