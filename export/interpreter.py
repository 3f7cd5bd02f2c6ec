"""Runs a TensorFlow Lite file over many examples."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from export.model_file import parse, require_content
from export.weights import expand
from qgen_tf import errors

BATCH_SIZE = 64

# what computes: XNNPACK where it can, the optimized kernels, the plain ones
KERNELS = {
    "xnnpack": litert.OpResolverType.BUILTIN,
    "builtin": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": litert.OpResolverType.BUILTIN_REF,
}

_LOW_BITS = {schema.TensorType.INT2, schema.TensorType.INT4}


class Interpreter:
    """A TensorFlow Lite file with one input and one output.

    Examples go through in batches; results do not depend on their size. Memory
    is planned for one batch, however many examples there are.

    Attributes:
      input_shape: of an image.
      output_step_size: scale of an integer output, or None if it is float.
    """

    def __init__(
        self,
        content: bytes,
        *,
        batch_size: int = BATCH_SIZE,
        num_threads: int | None = None,
        kernels: str = "xnnpack",
        expand_low_bits: bool = False,
    ):
        """Loads a file.

        A file that did not come from this process may crash it: call
        `sandbox.probe` first.

        Args:
          content: of the file.
          batch_size: most examples a call.
          num_threads: None for all cores.
          kernels: "xnnpack", "builtin" for the runtime's own optimized kernels,
            or "reference" for its plain ones; they round differently.
          expand_low_bits: whether weights of fewer than 8 bits are expanded to
            8 in memory. As they are, each convolution rounds values up to one
            step off, which adds up to many over a network whose activations
            have few bits, and some operators cannot read them.

        Raises:
          ExportError: the content is not bytes, the kernels are unknown, the
            batch size is below 1, the runtime cannot run it or the file, or
            the input and output are not one of int8, uint8 or float32 each.
        """
        require_content(content)
        require_kernels(kernels)
        if batch_size < 1:
            raise errors.ExportError(
                f"batch_size is {batch_size}: let it be 1 or more."
            )
        self._batch_size = batch_size
        self._content = expand(content) if expand_low_bits else content
        with self._refusal_reported():
            self._runtime = litert.Interpreter(
                model_content=self._content,
                num_threads=num_threads or os.cpu_count(),
                experimental_op_resolver_type=KERNELS[kernels],
            )
        self._input = _end("input", self._runtime.get_input_details())
        self._output = _end("output", self._runtime.get_output_details())
        self.input_shape = self._input.shape
        scale = self._output.scale
        self.output_step_size = None if scale is None else float(scale)
        self._resize(batch_size)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns logits.

        Args:
          images: float32 [examples, height, width, channels]. An integer input
            takes them rounded to its grid, halves to even, and clipped, as the
            deployed network does.

        Returns:
          float32 [examples, classes].

        Raises:
          DataError: there are no images, they have another shape or dtype, or
            hold NaN.
          ExportError: the runtime fails, or returns no row for each image.
        """
        levels = self.output_levels(images)
        if self._output.scale is None:
            return levels
        values = levels.astype(np.float32)
        values -= self._output.zero_point
        values *= self._output.scale
        return values

    def output_levels(self, images: np.ndarray) -> np.ndarray:
        """Returns what the file does, as it comes out; see `predict`.

        Returns:
          int8 or uint8 [examples, classes]; float32 of a file with a float
          output.
        """
        images = np.asarray(images)
        require_images(images, self.input_shape)
        count = len(images)
        size = self._batch_size
        if self._input.is_resizable:  # equal parts, so that little is padded
            size = -(-count // -(-count // size))
        if size != self._size:
            self._resize(size)
        parts = []
        for start in range(0, count, size):
            part = images[start : start + size]
            # here, and not of all at once: the cache holds them for `_fill`
            _require_numbers(part, start)
            parts.append(self._invoke(part))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _resize(self, size: int) -> None:
        shape = (size, *self._input.shape)
        with self._refusal_reported(f" {size} examples at once"):
            self._runtime.resize_tensor_input(self._input.index, shape)
            self._runtime.allocate_tensors()
        self._size = size
        self._steps = np.empty(shape, np.float32)

    def _invoke(self, images: np.ndarray) -> np.ndarray:
        self._fill(images)
        with self._refusal_reported():
            self._runtime.invoke()
            outputs = self._runtime.get_tensor(self._output.index)
        if outputs.ndim != 2 or len(outputs) != self._size:
            raise errors.ExportError(
                f"the file returns an output of shape {outputs.shape} for "
                f"{self._size} images: it must be (examples, classes)."
            )
        return outputs[: len(images)]

    def _fill(self, images: np.ndarray) -> None:
        """Writes images into the input; what is behind them is not read."""
        # a view that outlives this function would keep the runtime from running
        target = self._runtime.tensor(self._input.index)()[: len(images)]
        if self._input.scale is None:
            np.copyto(target, images)
            return
        steps = on_grid(
            images,
            self._input.scale,
            self._input.zero_point,
            self._input.dtype,
            out=self._steps[: len(images)],
        )
        np.copyto(target, steps, casting="unsafe")

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
    if kernels not in KERNELS:
        raise errors.ExportError(
            f"kernels {kernels!r} are unknown: choose one of {list(KERNELS)}."
        )


def require_images(images: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises a DataError unless there are images of a shape, in float32."""
    if images.dtype != np.float32:
        raise errors.DataError(
            f"the images are {images.dtype}: pass them in float32, "
            "preprocessed as they were in training."
        )
    if images.shape[1:] != shape or not len(images):
        raise errors.DataError(
            f"the images have shape {images.shape}: the file takes "
            f"(examples, {', '.join(map(str, shape))})."
        )


def _require_numbers(images: np.ndarray, start: int) -> None:
    """Raises a DataError if one of images `start`... holds NaN."""
    if np.isnan(np.min(images)):  # in one pass, without a copy
        wrong = np.isnan(images).reshape(len(images), -1).any(axis=1)
        raise errors.DataError(
            f"image {start + int(np.argmax(wrong))} holds NaN: mend the data "
            "set or its preprocessing."
        )


def on_grid(
    images: np.ndarray,
    scale: float | np.float32,
    zero_point: float | np.float32,
    dtype: type,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Rounds images to the grid of an integer input, halves to even.

    Args:
      images: float32.
      scale: of the input.
      zero_point: of the input.
      dtype: of the input, whose limits cut the images off.
      out: float32, to write to.

    Returns:
      Whole numbers, float32.
    """
    limits = np.iinfo(dtype)
    # by the reciprocal, as the network's own quantizer
    steps = np.multiply(images, np.float32(1.0) / np.float32(scale), out=out)
    np.rint(steps, out=steps)
    steps += np.float32(zero_point)
    return np.clip(steps, limits.min, limits.max, out=steps)


@dataclasses.dataclass(frozen=True)
class _End:
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


def _end(what: str, details: list[dict[str, Any]]) -> _End:
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
    return _End(
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
