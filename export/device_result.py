"""What a device found: reads device_result.json."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from export import run_on_device
from qgen_tf import errors
from qgen_tf.measures import Evaluation

# what reading a foreign file raises
_DAMAGE = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class SplitAgreement:
    """How far a device's outputs are from the recorded ones on one data set.

    Attributes:
      num_examples: number of examples.
      different_outputs: number of examples with an output that differs.
      max_steps: largest difference of an output, in steps of its integers (in
        logits for a float file).
      same_class: share of examples, in points, of the same class.
    """

    num_examples: int
    different_outputs: int
    max_steps: float
    same_class: float


@dataclasses.dataclass(frozen=True)
class DeviceResult:
    """The result of a bundle on a device.

    Attributes:
      bundle: identity of the bundle.
      evaluations: of the training and the test examples.
      agreements: of the same.
      machine: what the device is: a text or number by name.
      kernels: of the runtime.
      num_threads: of the runtime.
      latency_ms: "p50" and "p90" of one call with one example, "num_runs".
      peak_memory_mb: of the process; None if unknown.
    """

    bundle: str
    evaluations: tuple[Evaluation, Evaluation]
    agreements: tuple[SplitAgreement, SplitAgreement]
    machine: dict[str, str | int]
    kernels: str
    num_threads: int
    latency_ms: dict[str, float]
    peak_memory_mb: float | None


def read(path: str | os.PathLike[str]) -> DeviceResult:
    """Returns the result of a device, every field of which was checked.

    Raises:
      ExportError: the file is missing, damaged or of another program.
    """
    try:
        content = json.loads(pathlib.Path(path).read_bytes())
        return _result(content)
    except OSError as error:
        raise errors.ExportError(
            f"cannot read the device's result {path}: {error.strerror}."
        ) from error
    except _DAMAGE as error:
        raise errors.ExportError(
            f"{path} is not a device's result, or is damaged "
            f"({type(error).__name__}: {error}): run the bundle again and "
            "fetch device_result.json."
        ) from error


def _result(content: dict[str, Any]) -> DeviceResult:
    if content["format"] != run_on_device.RESULT_FORMAT:
        raise ValueError(f"its format is not {run_on_device.RESULT_FORMAT!r}")
    if not re.fullmatch(r"[0-9a-f]{64}", content["bundle"]):
        raise ValueError("bundle is no SHA-256")
    if content["kernels"] not in run_on_device.KERNELS:
        raise ValueError(f"kernels {content['kernels']!r} are unknown")
    train, test = (content[split] for split in run_on_device.SPLITS)
    memory = content["peak_memory_mb"]
    return DeviceResult(
        bundle=content["bundle"],
        evaluations=(_evaluation(train), _evaluation(test)),
        agreements=(_agreement(train), _agreement(test)),
        machine={
            str(name): fact if isinstance(fact, int) else str(fact)
            for name, fact in content["machine"].items()
        },
        kernels=content["kernels"],
        num_threads=_count(content["num_threads"], 2**16),
        latency_ms={
            name: _number(content["latency_ms"][name])
            for name in ("p50", "p90", "num_runs")
        },
        peak_memory_mb=None if memory is None else _number(memory),
    )


def _evaluation(found: dict[str, Any]) -> Evaluation:
    count = _count(found["num_examples"], 2**40)
    losses, packed = (
        np.frombuffer(base64.b64decode(found[name], validate=True), dtype)
        for name, dtype in (("losses", "<f4"), ("correct", np.uint8))
    )
    if count < 1 or len(losses) != count or len(packed) != -(-count // 8):
        raise ValueError(f"it does not hold {count} losses")
    if not np.isfinite(losses).all():
        raise ValueError("a loss is not finite")
    correct = np.unpackbits(packed)[:count].astype(bool)
    return Evaluation(losses=losses.astype(np.float32), correct=correct)


def _agreement(found: dict[str, Any]) -> SplitAgreement:
    count = found["num_examples"]
    return SplitAgreement(
        num_examples=count,
        different_outputs=_count(found["different_outputs"], count),
        max_steps=_number(found["max_steps"]),
        same_class=100.0 * _count(found["same_class"], count) / count,
    )


def _count(value: Any, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    if not 0 <= value <= limit:
        raise ValueError(f"{value} is not in 0 to {limit}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    if not 0 <= value < math.inf:
        raise ValueError(f"{value} is not finite and 0 or more")
    return value
