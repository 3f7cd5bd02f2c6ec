"""The offset of the weights, within a ball, at which the loss is largest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from qgen_tf.measures.balls import Ball
from qgen_tf.measures.objective import Objective
from qgen_tf.measures.perturbations import Neighbourhood

Offsets = Sequence[tf.Tensor]

_MOMENTUM = 0.75  # share of the new step
_FIRST_STEP = 2.0  # in radii of the ball
_MIN_RISES = 0.75  # share of steps that must raise the loss


@dataclasses.dataclass(frozen=True)
class Worst:
    """What an ascent found.

    Attributes:
      offsets: with the largest loss, a tensor for each variable.
      loss: at these, in nats.
      accuracy: at these, in [0, 1].
      zero: loss and accuracy without an offset; `loss` is not below its loss.
      lowest_accuracy: smallest accuracy of all offsets that were evaluated.
      num_passes: passes over the data.
      finite: whether the loss was finite at all of them. Where it is not, the
        offset counts for `lowest_accuracy` but does not win.
    """

    offsets: Offsets = dataclasses.field(repr=False, compare=False)
    loss: float
    accuracy: float
    zero: tuple[float, float]
    lowest_accuracy: float
    num_passes: int
    finite: bool


def worst_offset(
    near: Neighbourhood,
    ball: Ball,
    *,
    num_steps: int,
    num_restarts: int,
    seed: int,
    objective: Objective | None = None,
) -> Worst:
    """Maximizes the loss over a ball around the weights, by APGD.

    Auto-PGD (Croce & Hein 2020, arXiv 2003.01690, section 3 and algorithm 1)
    as Andriushchenko et al. 2023 (arXiv 2302.07011) take it for weights:

        z       = P(d_k + step * steepest(gradient at d_k))
        d_(k+1) = P(d_k + 0.75 (z - d_k) + 0.25 (d_k - d_(k-1)))

    P projects on the ball, and the step is twice its radius at first. At
    checkpoints that grow denser it is halved, and the search goes back to the
    best offset, unless three of four steps have raised the loss; so it does
    after a step to where the loss is not finite. Each step is one pass over
    the data, forward and backward. Step and projection are in the ball's own
    units: ascent does not depend on the scale of a layer if the ball does not.

    The result is a lower bound of the maximum. Where the loss has no gradient
    only the random starts are tried.

    Args:
      near: the weights and their surroundings; they are left displaced.
      ball: of the offsets.
      num_steps: steps of each start, at least 1.
      num_restarts: starts in all, at least 1. The first is at zero, or random
        if the gradient there is zero, as it is at an exact minimum; its first
        step is the one that SAM takes. All others are random in the ball.
      seed: of the random starts.
      objective: what is maximized; `near.objective` if None.
    """
    search = _Search(near, objective or near.objective)
    zero = search.visit([tf.zeros_like(value) for value in near.originals])
    for restart in range(num_restarts):
        start = zero
        if restart or not _any_nonzero(ball.steepest(zero.gradients)):
            start = search.visit(ball.random((seed, restart)))
        _climb(search, ball, start, num_steps)
    best = search.best
    return Worst(
        offsets=best.offsets,
        loss=best.loss,
        accuracy=best.accuracy,
        zero=(zero.loss, zero.accuracy),
        lowest_accuracy=search.lowest_accuracy,
        num_passes=search.num_passes,
        finite=search.finite,
    )


@dataclasses.dataclass(frozen=True)
class _Visit:
    offsets: Offsets
    loss: float
    accuracy: float
    gradients: Offsets = ()


class _Search:
    """Evaluates offsets and remembers what is to be reported."""

    def __init__(self, near: Neighbourhood, objective: Objective):
        self.best: _Visit
        self.lowest_accuracy = math.inf
        self.num_passes = 0
        self.finite = True
        self._near = near
        self._objective = objective

    def visit(self, offsets: Offsets, *, is_last: bool = False) -> _Visit:
        """Evaluates loss, accuracy and, unless it is the last, gradient."""
        self._near.move(offsets)
        if is_last:
            visit = _Visit(offsets, *self._objective())
        else:
            visit = _Visit(offsets, *self._objective.gradient())
        if not self.num_passes or self.best.loss < visit.loss < math.inf:
            self.best = visit
        self.finite &= math.isfinite(visit.loss)
        self.lowest_accuracy = min(self.lowest_accuracy, visit.accuracy)
        self.num_passes += 1
        return visit


def _climb(search: _Search, ball: Ball, start: _Visit, num_steps: int) -> None:
    """Takes the steps of one start; see `worst_offset`."""
    checkpoints = _checkpoints(num_steps)
    best = before = here = start
    share, step = 1.0, _FIRST_STEP
    last_checkpoint, rises = 0, 0
    loss_then, halved_then = start.loss, True
    for count in range(1, num_steps + 1):
        if not math.isfinite(here.loss):
            if here is best:
                return  # a start from which nothing leads on
            before = here = best
            step /= 2
        offsets = _moved(
            ball,
            before.offsets,
            here.offsets,
            here.gradients,
            *(tf.constant(number, tf.float64) for number in (step, share)),
        )
        share = _MOMENTUM
        before, here = here, search.visit(offsets, is_last=count == num_steps)
        rises += here.loss > before.loss
        if best.loss < here.loss < math.inf:
            best = here
        if count in checkpoints:
            steps = count - last_checkpoint
            idle = not halved_then and best.loss == loss_then
            halved_then = rises < _MIN_RISES * steps or idle
            if halved_then:
                step /= 2
                before = here = best
            last_checkpoint, rises, loss_then = count, 0, best.loss


@tf.function(autograph=False, reduce_retracing=True)
def _moved(
    ball: Ball,
    before: Offsets,
    here: Offsets,
    gradients: Offsets,
    step: tf.Tensor,
    share: tf.Tensor,
) -> Offsets:
    """Returns the next offsets: a step from `here`, with momentum.

    Args:
      ball: of the offsets.
      before: the offsets before.
      here: the last ones.
      gradients: of the loss at these.
      step: in radii of the ball, float64.
      share: of the step, float64; the rest is momentum.
    """
    targets = ball.project(
        [
            offset + tf.cast(step, offset.dtype) * ascent
            for offset, ascent in zip(
                here, ball.steepest(gradients), strict=True
            )
        ]
    )
    momentum = 1.0 - share
    return ball.project(
        [
            now
            + tf.cast(share, now.dtype) * (target - now)
            + tf.cast(momentum, now.dtype) * (now - then)
            for target, now, then in zip(targets, here, before, strict=True)
        ]
    )


def _checkpoints(num_steps: int) -> set[int]:
    """Returns the steps after which the step size is reconsidered."""
    percents = [0, 22]
    while percents[-1] < 100:
        gap = percents[-1] - percents[-2]
        percents.append(percents[-1] + max(gap - 3, 6))
    return {-(-percent * num_steps // 100) for percent in percents[1:-1]}


def _any_nonzero(parts: Offsets) -> bool:
    return any(bool(tf.reduce_any(part != 0)) for part in parts)
