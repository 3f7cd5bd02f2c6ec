"""How long a file takes for an image, on this machine."""

from __future__ import annotations

import time
import timeit

import numpy as np

from export.interpreter import Interpreter

_WARM_UP_RUNS = 10
_NUM_RUNS = 100


def latency_ms(
    content: bytes,
    image: np.ndarray,
    *,
    kernels: str = "xnnpack",
    expand_low_bits: bool = False,
) -> dict[str, float]:
    """Returns percentiles of the time of one call, on one thread.

    The time to load the file and the first calls, which fill caches, are left
    out.

    Args:
      content: of the TensorFlow Lite file.
      image: float32 [height, width, channels], preprocessed.
      kernels: of the runtime; see `export.Interpreter`.
      expand_low_bits: see there.

    Returns:
      "p50" and "p90", in milliseconds.

    Raises:
      DataError: the image does not fit the file.
      ExportError: the file cannot be run.
    """
    interpreter = Interpreter(
        content,
        batch_size=1,
        num_threads=1,
        kernels=kernels,
        expand_low_bits=expand_low_bits,
    )
    seconds = timeit.repeat(
        lambda: interpreter.output_levels(image[np.newaxis]),
        timer=time.perf_counter,
        number=1,
        repeat=_WARM_UP_RUNS + _NUM_RUNS,
    )
    p50, p90 = np.percentile(seconds[_WARM_UP_RUNS:], [50, 90])
    return {"p50": 1e3 * float(p50), "p90": 1e3 * float(p90)}
