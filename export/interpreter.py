"""Runs a TensorFlow Lite file over many examples."""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import NamedTuple

import numpy as np

from export.lane import Lane, require_kernels
from export.model_file import require_content
from export.pipeline import Pipeline
from export.weights import expand
from qgen_tf import errors

# At once: of small images more save time, of large ones they only take memory.
_MOST_EXAMPLES = 512
_MOST_VALUES = 2**21  # of the input: 13 images of 224 pixels

_MOST_LANES = 8  # each has its own copy of the weights


class Interpreter:
    """A TensorFlow Lite file with one input and one output.

    Examples go through in parts, several at once, each in a copy of the
    runtime: that wastes less time than many threads at one operator do. Results
    do not depend on the parts. Memory is planned for one batch, however many
    examples there are, and calls from several threads share it.

    Attributes:
      batch_size: most examples at once, over all copies.
      input_shape: of an image.
      output_step_size: scale of an integer output, or None if it is float.
    """

    @errors.typed
    def __init__(
        self,
        content: bytes,
        *,
        batch_size: int | None = None,
        num_threads: int | None = None,
        kernels: str = "xnnpack",
        expand_low_bits: bool = False,
    ):
        """Loads a file.

        A file that did not come from this process may crash it: call
        `sandbox.probe` first.

        Args:
          content: of the file.
          batch_size: most examples at once, over all copies; at least one in
            each. None for 512, or fewer if images are larger than 36 pixels.
            Of a file that takes a fixed number of examples, that number, which
            is in each copy.
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
          ConfigError: a setting has another type.
        """
        require_content(content)
        require_kernels(kernels)
        if batch_size is not None and batch_size < 1:
            raise errors.ExportError(
                f"batch_size is {batch_size}: let it be 1 or more."
            )
        if expand_low_bits:
            content = expand(content)
        num_threads = num_threads or os.cpu_count() or 1
        self._num_lanes = max(
            count
            for count in range(1, _MOST_LANES + 1)
            if num_threads % count == 0
        )
        self._free_lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for _ in range(self._num_lanes):
            lane = Lane(content, kernels, num_threads // self._num_lanes)
            self._free_lanes.put(lane)
        self._threads = futures.ThreadPoolExecutor(self._num_lanes)
        self._input, self._output = lane.input, lane.output
        self.input_shape = self._input.shape
        scale = self._output.scale
        self.output_step_size = None if scale is None else float(scale)
        if batch_size is None:
            fitting = _MOST_VALUES // math.prod(self.input_shape)
            batch_size = max(1, min(_MOST_EXAMPLES, fitting))
        self.batch_size = self._most = batch_size
        if self._input.is_resizable:
            self._most = -(-batch_size // self._num_lanes)
        lane.resize(self._most)

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
        return self._logits(self.output_levels(images))

    def predict_batches(
        self, batches: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yields the logits of each batch; see `predict`.

        That is faster than a call for each: the threads go on with the next
        batches while the last parts of one run, and while whoever asked works
        on what was yielded. One of them reads the batches. At most three are
        held at once.
        """
        for levels in self._levels(
            map(self._parts, batches), self._num_lanes - 1
        ):
            yield self._logits(levels)

    def output_levels(self, images: np.ndarray) -> np.ndarray:
        """Returns what the file does, as it comes out; see `predict`.

        Returns:
          int8 or uint8 [examples, classes]; float32 of a file with a float
          output.
        """
        parts = self._parts(images)
        num_others = min(self._num_lanes, len(parts)) - 1
        (levels,) = self._levels([parts], num_others)
        return levels

    def _levels(
        self, batches: Iterable[list[_Part]], num_others: int
    ) -> Iterator[np.ndarray]:
        """Yields the output of each batch.

        Args:
          batches: in parts.
          num_others: threads beside that which asks.
        """
        pipeline = Pipeline(self._run, batches)
        for levels in pipeline.results(self._threads, num_others):
            yield levels[0] if len(levels) == 1 else np.concatenate(levels)

    def _logits(self, levels: np.ndarray) -> np.ndarray:
        if self._output.scale is None:
            return levels
        values = levels.astype(np.float32)
        values -= self._output.zero_point
        values *= self._output.scale
        return values

    def _parts(self, images: np.ndarray) -> list[_Part]:
        """Returns the parts of a batch."""
        images = np.asarray(images)
        require_images(images, self.input_shape)
        size = self._size(len(images))
        return [
            _Part(images[start : start + size], start, size)
            for start in range(0, len(images), size)
        ]

    def _size(self, count: int) -> int:
        """Returns the examples of a part.

        Parts are equal, so that little is padded, and as many for each lane.
        """
        if not self._input.is_resizable:
            return self._most
        rounds = -(-count // (self._most * self._num_lanes))
        return -(-count // (rounds * self._num_lanes))

    def _run(self, part: _Part) -> np.ndarray:
        """Runs a part in the first lane that is free."""
        lane = self._free_lanes.get()
        try:
            lane.resize(part.size)
            return lane.run(part.images, part.start)
        finally:
            self._free_lanes.put(lane)


class _Part(NamedTuple):
    """Images that go through a lane at once.

    Attributes:
      images: of a batch.
      start: index of the first in the batch.
      size: that the lane has; the last part may have fewer images.
    """

    images: np.ndarray
    start: int
    size: int


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
