"""What measures cost, beside a straightforward implementation of them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from benchmarks import plain_measures, rows
from qgen_tf.cli import program

MANUAL = """\
Takes the measures that need many passes over the data, and takes them again as
published code does: a copy of the model gets the noise, and is evaluated on
all examples, for each noise draw and each of 15 steps of a bisection (Jiang et
al. 2020; Dziugaite et al. 2020). Of the 15 steps, which are alike, those at
the crossing are run (two, and for the worst case one) and counted as 15; of
random noise, with 40 draws that are counted as the 10 of each step.

Both compute on the same deployed network, in turns, in one process; what is
compiled once is not counted. "outside" is the share of our time that is spent
neither in forward nor in backward passes. "equal error" is the ratio of times,
corrected to equal standard errors: these fall with the root of the time.

Examples:
  python -m benchmarks.measures
  python -m benchmarks.measures --run_dir=runs/cifar10_nin-float-0123abcd \\
    --num_examples=10000
"""

_RUN_DIR = flags.DEFINE_string(
    "run_dir",
    None,
    "written by qgen-train; if left away, the float model of the quick start "
    "is trained, on 1,437 digits.",
)
_NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", 10_000, "of the training set, at most.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 256, "examples in a pass at a time.", lower_bound=1
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A measure, taken in both ways.

    Attributes:
      measure: its name.
      plain_seconds: of the straightforward implementation.
      seconds: of ours.
      outside: share of our time outside of the model.
      plain_value: as the straightforward implementation has it.
      value: as ours has it.
      plain_error: standard error of its value; 0 if nothing is known of it.
      error: of ours, likewise.
    """

    measure: str
    plain_seconds: float
    seconds: float
    outside: float
    plain_value: float
    value: float
    plain_error: float
    error: float

    @property
    def equal_error(self) -> float:
        """How many times as long the plain one takes for the same error."""
        ratio = self.plain_seconds / self.seconds
        if not (self.error and self.plain_error):
            return ratio
        return ratio * (self.plain_error / self.error) ** 2

    def __str__(self) -> str:
        return (
            f"{self.measure:34}{self.plain_seconds:9.1f}{self.seconds:9.1f}"
            f"{self.plain_seconds / self.seconds:8.1f}{self.equal_error:8.1f}"
            f"{self.outside:9.1%}{self.plain_value:11.4g}{self.value:11.4g}"
            f"{self.plain_error:10.2g}{self.error:10.2g}"
        )


_HEADER = (
    f"{'measure':34}{'plain s':>9}{'ours s':>9}{'ratio':>8}{'equal e.':>8}"
    f"{'outside':>9}{'plain':>11}{'ours':>11}{'plain se':>10}{'our se':>10}"
)


class _ModelTime:
    """Seconds spent in the compiled passes of every `Objective`."""

    def __init__(self) -> None:
        from qgen_tf.measures.objective import Objective

        self.seconds = 0.0
        compiled = Objective._compiled

        def timed(objective: Any, *arguments: Any) -> Callable[..., Any]:
            return self._timed(compiled(objective, *arguments))

        Objective._compiled = timed

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            results = function(*arguments)
            results[0].numpy()  # until it is there
            self.seconds += time.perf_counter() - start
            return results

        return call


def _measured(run_dir: str) -> Iterator[Pair]:
    from qgen_tf import data, measures, training

    model = training.load_model(run_dir)
    splits = data.load(training.RunDirectory(run_dir).config.dataset)
    chosen = splits.train.take(_NUM_EXAMPLES.value)
    dataset = chosen.batch(_BATCH_SIZE.value).cache()
    inside = _ModelTime()
    plain = plain_measures.PlainNetwork(model, dataset)
    with measures.shared():
        measures.average_sharpness(model, dataset, num_samples=2)  # compiles
        measures.sam_sharpness(model, dataset)
        for name, ours, theirs in _pairs(plain):
            inside.seconds = 0.0
            start = time.perf_counter()
            result = ours(model, dataset)
            seconds = time.perf_counter() - start
            outside = 1.0 - inside.seconds / seconds
            found = theirs(result.value)
            yield Pair(
                name,
                found.seconds,
                seconds,
                outside,
                found.value,
                result.value,
                found.standard_error,
                result.standard_error,
            )


def _pairs(
    plain: plain_measures.PlainNetwork,
) -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """Gives name, our measure, and the plain one given our value."""
    from qgen_tf import measures

    for adaptive in (False, True):
        suffix = ", adaptive" if adaptive else ""
        for name, theirs in (
            ("average_sharpness", plain.average_sharpness),
            ("pac_bayes_sigma", plain.sigma),
            ("sharpness_alpha", plain.alpha),
        ):
            ours = functools.partial(getattr(measures, name), adaptive=adaptive)
            if name == "sharpness_alpha":
                ours = functools.partial(
                    ours, epsilon=plain_measures.ALPHA_EPSILON
                )
            yield (
                name + suffix,
                ours,
                functools.partial(theirs, adaptive=adaptive),
            )


def _rows(pairs: list[Pair], name: str) -> list[rows.Row]:
    """Returns the rows: of each measure, and of all of them."""
    seconds = sum(pair.seconds for pair in pairs)
    outside = sum(pair.outside * pair.seconds for pair in pairs) / seconds
    ratio = sum(pair.plain_seconds for pair in pairs) / seconds
    equal = sum(pair.equal_error * pair.seconds for pair in pairs) / seconds
    time_ratio = "time of the straightforward one over ours"
    return [
        *(
            rows.Row(
                f"{pair.measure}, {name}",
                f"{time_ratio}, at equal error",
                rows.Spread(pair.equal_error),
                at_least=1.0,
            )
            for pair in pairs
        ),
        rows.Row(f"all of them, {name}", time_ratio, rows.Spread(ratio)),
        rows.Row(
            f"all of them, {name}",
            f"{time_ratio}, at equal error",
            rows.Spread(equal),
            at_least=5.0,
        ),
        rows.Row(
            f"all of them, {name}",
            "share of our time outside of passes through the model",
            rows.Spread(outside),
            at_most=0.05,
        ),
    ]


def _trained(workdir: str) -> str:
    """Trains the float model of the quick start, and returns its folder."""
    from configs import quickstart
    from qgen_tf import training

    config = training.float_config(quickstart.get_config())
    return str(training.train(config, workdir).path)


def _main() -> None:
    pairs = []
    with tempfile.TemporaryDirectory() as workdir:
        run_dir = _RUN_DIR.value or _trained(workdir)
        name = pathlib.Path(run_dir).name.rpartition("-")[0]
        print(f"{run_dir}, {_NUM_EXAMPLES.value} examples")
        print(_HEADER, flush=True)
        for pair in _measured(run_dir):
            pairs.append(pair)
            print(pair, flush=True)
    rows.finish(
        _OUTPUT.value,
        _rows(pairs, name),
        num_examples=_NUM_EXAMPLES.value,
        results=[dataclasses.asdict(pair) for pair in pairs],
    )


if __name__ == "__main__":
    program.run(_main, MANUAL, (_RUN_DIR, _NUM_EXAMPLES, _BATCH_SIZE, _OUTPUT))
