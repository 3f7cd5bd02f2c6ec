"""A TensorFlow Lite file in the runtime, ready to run one batch at a time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from export.model_file import parse
from qgen_tf import errors

# what computes: XNNPACK where it can, the optimized kernels, the plain ones
KERNELS = {
    "xnnpack": litert.OpResolverType.BUILTIN,
    "builtin": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": litert.OpResolverType.BUILTIN_REF,
}

_LOW_BITS = {schema.TensorType.INT2, schema.TensorType.INT4}


class Lane:
    """One copy of the runtime, with its own memory.

    Attributes:
      input: of the file.
      output: of the file.
    """

    def __init__(self, content: bytes, kernels: str, num_threads: int):
        """Loads a file.

        Args:
          content: of the file.
          kernels: a key of `KERNELS`.
          num_threads: of the copy.

        Raises:
          ExportError: the runtime cannot load the file, or the input and output
            are not one of int8, uint8 or float32 each.
        """
        self._content = content
        with self._refusal_reported():
            self._runtime = litert.Interpreter(
                model_content=content,
                num_threads=num_threads,
                experimental_op_resolver_type=KERNELS[kernels],
            )
        self.input = _end("input", self._runtime.get_input_details())
        self.output = _end("output", self._runtime.get_output_details())
        self._size = 0

    def resize(self, size: int) -> None:
        """Plans memory for a number of examples, unless it is planned.

        Raises:
          ExportError: the file does not run with so many.
        """
        if size == self._size:
            return
        shape = (size, *self.input.shape)
        with self._refusal_reported(f" {size} examples at once"):
            self._runtime.resize_tensor_input(self.input.index, shape)
            self._runtime.allocate_tensors()
        self._size = size
        self._steps = np.empty(shape, np.float32)

    def run(self, images: np.ndarray, start: int) -> np.ndarray:
        """Returns what the file does, as it comes out.

        Args:
          images: float32, at most as many as there is memory for.
          start: index of the first, to name one that is wrong.

        Raises:
          DataError: an image holds NaN.
          ExportError: the runtime fails, or returns no row for each image.
        """
        self._fill(images, start)
        with self._refusal_reported():
            self._runtime.invoke()
            outputs = self._runtime.get_tensor(self.output.index)
        if outputs.ndim != 2 or len(outputs) != self._size:
            raise errors.ExportError(
                f"the file returns an output of shape {outputs.shape} for "
                f"{self._size} images: it must be (examples, classes)."
            )
        return outputs[: len(images)]

    def _fill(self, images: np.ndarray, start: int) -> None:
        """Writes images into the input; what is behind them is not read."""
        values = images
        if self.input.scale is None:
            _require_numbers(images, start)
        else:
            values = on_grid(
                images,
                self.input.scale,
                self.input.zero_point,
                self.input.dtype,
                start=start,
                out=self._steps[: len(images)],
            )
        # a view that outlives this function would keep the runtime from running
        target = self._runtime.tensor(self.input.index)()
        np.copyto(target[: len(images)], values, casting="unsafe")

    @contextlib.contextmanager
    def _refusal_reported(self, what: str = "") -> Iterator[None]:
        """Turns what the runtime raises into an ExportError."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            if _has_low_bits(self._content):
                reason += (
                    "; pass expand_low_bits=True, since some operators cannot "
                    "read weights of fewer than 8 bits"
                )
            raise errors.ExportError(
                f"the runtime cannot run this file{what}: {reason}"
            ) from error


def require_kernels(kernels: str) -> None:
    """Raises an ExportError unless the kernels are one of `KERNELS`."""
    if kernels not in list(KERNELS):
        raise errors.ExportError(
            f"kernels {kernels!r} are unknown: choose one of {list(KERNELS)}."
        )


def on_grid(
    images: np.ndarray,
    scale: float | np.float32,
    zero_point: float | np.float32,
    dtype: type,
    *,
    start: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Rounds images to the grid of an integer input, halves to even.

    Args:
      images: float32.
      scale: of the input.
      zero_point: of the input.
      dtype: of the input, whose limits cut the images off.
      start: index of the first image, to name one that is wrong.
      out: float32, to write to.

    Returns:
      Whole numbers, float32.

    Raises:
      DataError: an image holds NaN.
    """
    limits = np.iinfo(dtype)
    # by the reciprocal, as the network's own quantizer
    steps = np.multiply(images, np.float32(1.0) / np.float32(scale), out=out)
    np.rint(steps, out=steps)
    if zero_point:
        steps += np.float32(zero_point)
    # most are inside: to look takes less time than to clip, and finds NaN, too
    if not (limits.min <= np.min(steps) and np.max(steps) <= limits.max):
        _require_numbers(steps, start)
        np.clip(steps, limits.min, limits.max, out=steps)
    return steps


def _require_numbers(images: np.ndarray, start: int) -> None:
    """Raises a DataError if one of images `start`... holds NaN."""
    if np.isnan(np.min(images)):  # in one pass, without a copy
        wrong = np.isnan(images).reshape(len(images), -1).any(axis=1)
        raise errors.DataError(
            f"image {start + int(np.argmax(wrong))} holds NaN: mend the data "
            "set or its preprocessing."
        )


@dataclasses.dataclass(frozen=True)
class End:
    """The input or output of a file.

    Attributes:
      index: of the tensor.
      dtype: int8, uint8 or float32.
      shape: without the axis of examples.
      is_resizable: whether the file leaves the number of examples open.
      scale: None if the tensor is float.
      zero_point: 0 if the tensor is float.
    """

    index: int
    dtype: type
    shape: tuple[int, ...]
    is_resizable: bool
    scale: np.float32 | None
    zero_point: np.float32


def _end(what: str, details: list[dict[str, Any]]) -> End:
    if len(details) != 1:
        raise errors.ExportError(
            f"the file has {len(details)} {what}s: it must have one."
        )
    (tensor,) = details
    dtype = tensor["dtype"]
    scale, zero_point = tensor["quantization"]
    is_float = dtype is np.float32
    if not is_float and dtype not in (np.int8, np.uint8):
        raise errors.ExportError(
            f"the {what} of the file is {np.dtype(dtype)}: it must be int8, "
            "uint8 or float32."
        )
    if not is_float and not (np.isfinite(scale) and scale > 0.0):
        raise errors.ExportError(
            f"the {what} of the file is {np.dtype(dtype)} with the scale "
            f"{scale}: it must have one, positive scale."
        )
    return End(
        index=tensor["index"],
        dtype=dtype,
        shape=tuple(int(size) for size in tensor["shape"][1:]),
        is_resizable=list(tensor["shape_signature"][:1]) == [-1],
        scale=None if is_float else np.float32(scale),
        zero_point=np.float32(0 if is_float else zero_point),
    )


def _has_low_bits(content: bytes) -> bool:
    try:
        tensors = parse(content).subgraphs[0].tensors
    except errors.ExportError:
        return False
    return any(tensor.type in _LOW_BITS for tensor in tensors)
