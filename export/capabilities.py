"""Which operators of the runtime take which storage of weights.

Neither the runtime's documents nor its version say: files of one operator are
made and run. `python -m export.capabilities` prints the table.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from export.lane import KERNELS
from export.model_file import parse
from export.operator_file import OPERATORS, operator_file
from export.packing import SIZES
from export.sandbox import Sandbox
from export.weights import read_weights
from qgen_tf import errors


@dataclasses.dataclass(frozen=True)
class Capability:
    """What the runtime does with an operator and a storage of its weights.

    Attributes:
      operator: such as CONV_2D.
      num_bits: of a weight in the file: 2, 4 or 8.
      kernels: a key of `lane.KERNELS`.
      steps_off: how far outputs are from the exact sums, rounded once, in
        steps of the output; None if the runtime refuses the file. Some kernels
        round twice, to 1 step off; more is a wrong result.
      refusal: what the runtime says then.
    """

    operator: str
    num_bits: int
    kernels: str
    steps_off: int | None
    refusal: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether the operator runs and is not wrong."""
        return self.steps_off is not None and self.steps_off <= 1

    @property
    def verdict(self) -> str:
        """The same in words: exact, 1 step off, wrong or refused."""
        if self.steps_off is None:
            return "refused"
        return {0: "exact", 1: "1 step off"}.get(self.steps_off, "wrong")


@functools.cache
def capabilities() -> tuple[Capability, ...]:
    """Tries every operator with every storage and all kernels.

    That takes a second, and happens in a child process, which a kernel may
    crash.
    """
    with Sandbox() as sandbox:
        return tuple(
            _probed(operator, num_bits, kernels, sandbox)
            for operator in OPERATORS
            for num_bits in sorted(SIZES, reverse=True)
            for kernels in KERNELS
        )


def require_runnable(content: bytes, *, kernels: str = "xnnpack") -> None:
    """Raises unless the runtime can run a file's weights as they are stored.

    Args:
      content: of a TensorFlow Lite file.
      kernels: a key of `lane.KERNELS`.

    Raises:
      ExportError: names the first layer whose operator cannot.
    """
    for weight in read_weights(parse(content)):
        if weight.num_bits >= 8 or _can_run(
            weight.operator, weight.num_bits, kernels
        ):
            continue
        raise errors.ExportError(
            f"layer {weight.name!r}: the runtime's {kernels} kernels have no "
            f"{weight.operator} for weights of {weight.num_bits} bits; convert "
            'with storage="int8", or expand the weights when the file is '
            "loaded (expand_low_bits=True)."
        )


def table() -> str:
    """Returns the capabilities as a table in Markdown."""
    rows = [
        ["operator", "bits of a weight", *KERNELS],
        ["---"] * (2 + len(KERNELS)),
    ]
    for operator in OPERATORS:
        for num_bits in sorted(SIZES, reverse=True):
            rows.append(
                [
                    *(operator, str(num_bits)),
                    *(
                        _capability(operator, num_bits, kernels).verdict
                        for kernels in KERNELS
                    ),
                ]
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _can_run(operator: str, num_bits: int, kernels: str) -> bool:
    return _capability(operator, num_bits, kernels).is_usable


def _capability(operator: str, num_bits: int, kernels: str) -> Capability:
    wanted = (operator, num_bits, kernels)
    (found,) = (
        one
        for one in capabilities()
        if (one.operator, one.num_bits, one.kernels) == wanted
    )
    return found


def _probed(
    operator: str, num_bits: int, kernels: str, sandbox: Sandbox
) -> Capability:
    file = operator_file(operator, num_bits, seed=0)
    content = np.frombuffer(file.content, np.uint8)
    try:
        sandbox.ask("load", content, batch_size=1, kernels=kernels)
        _, found = sandbox.ask("output_levels", file.inputs)
    except errors.ExportError as error:
        return Capability(operator, num_bits, kernels, None, str(error))
    off = np.abs(found.astype(np.int32) - file.outputs).max()
    return Capability(operator, num_bits, kernels, int(off))


if __name__ == "__main__":
    print(table())
