"""Sets of weight perturbations around zero: boxes and ellipsoids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

_ROUNDING = 1e-5  # relative, of float32


class Ball(Protocol):
    """A set of perturbations that is closed, convex and symmetric.

    A perturbation is a list of tensors in the shapes of the weights. Each
    coordinate has its own unit of length; a coordinate whose unit is zero
    stays zero. Balls are tuples of their settings, which a compiled function
    takes as they are.
    """

    def random(self, seed: tuple[int, int]) -> list[tf.Tensor]:
        """Returns a point that is uniformly distributed in the ball."""

    def steepest(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the point d that maximizes `sum_i g_i d_i`.

        It lies on the boundary. A gradient of zero gives zero.
        """

    def project(self, offsets: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the nearest point, each coordinate in its own unit.

        A point inside is returned as it is, to the bit.
        """

    def contains(self, offsets: Sequence[tf.Tensor]) -> bool:
        """Returns whether a point is inside, up to rounding; NaN is not."""


class Box(NamedTuple):
    """The perturbations with `|d_i| <= radius_i`.

    Attributes:
      radii: one for each coordinate, at least 0, in the shapes of the weights.
    """

    radii: Sequence[tf.Tensor]

    def random(self, seed: tuple[int, int]) -> list[tf.Tensor]:
        """See `Ball`."""
        uniform = tf.random.stateless_uniform(
            [_size(self.radii)], seed, minval=-1.0, maxval=1.0
        )
        return [
            radius * part
            for radius, part in zip(
                self.radii, _split(uniform, self.radii), strict=True
            )
        ]

    def steepest(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Ball`: `radius * sign(g)`."""
        return [
            radius * tf.sign(gradient)
            for radius, gradient in zip(self.radii, gradients, strict=True)
        ]

    def project(self, offsets: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Ball`: each coordinate is clipped, whatever its unit."""
        return [
            tf.clip_by_value(offset, -radius, radius)
            for radius, offset in zip(self.radii, offsets, strict=True)
        ]

    def contains(self, offsets: Sequence[tf.Tensor]) -> bool:
        """See `Ball`."""
        return all(
            bool(tf.reduce_all(tf.abs(offset) <= radius * (1 + _ROUNDING)))
            for radius, offset in zip(self.radii, offsets, strict=True)
        )


class Ellipsoid(NamedTuple):
    """The perturbations with `sum_i (d_i / scale_i)^2 <= rho^2`.

    Lengths are summed in float64: weights, and so scales, may be tiny.

    Attributes:
      rho: radius, in units of the scales.
      scales: one for each coordinate, at least 0, in the shapes of the
        weights; all one for a Euclidean ball.
    """

    rho: float
    scales: Sequence[tf.Tensor]

    def random(self, seed: tuple[int, int]) -> list[tf.Tensor]:
        """See `Ball`."""
        size = _size(self.scales)
        # A point on the sphere in n + 2 dimensions, less two coordinates, is
        # uniformly distributed in the ball of n.
        normal = tf.random.stateless_normal([size + 2], seed)
        free = [
            tf.where(scale > 0, part, tf.zeros_like(part))
            for scale, part in zip(
                self.scales, _split(normal[:size], self.scales), strict=True
            )
        ]
        length = self.rho / _norm([*free, normal[size:]])
        return [
            scale * part * tf.cast(length, part.dtype)
            for scale, part in zip(self.scales, free, strict=True)
        ]

    def steepest(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Ball`: `rho s^2 g / ||s g||`, s being the scales."""
        slopes = [
            _float64(scale) * _float64(gradient)
            for scale, gradient in zip(self.scales, gradients, strict=True)
        ]
        length = tf.math.divide_no_nan(_float64(self.rho), _norm(slopes))
        return [
            scale * tf.cast(length * slope, scale.dtype)
            for scale, slope in zip(self.scales, slopes, strict=True)
        ]

    def project(self, offsets: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Ball`: in the units of the scales the ball is round.

        This is the projection that belongs to `steepest`. After such a step
        the nearest point in the Euclidean sense would be another, and ascent
        would come to rest where the loss is not at its largest.
        """
        rho = _float64(self.rho)
        shrink = rho / tf.maximum(self._length(offsets), rho)
        return [
            tf.where(
                scale > 0,
                offset * tf.cast(shrink, offset.dtype),
                tf.zeros_like(offset),
            )
            for scale, offset in zip(self.scales, offsets, strict=True)
        ]

    def contains(self, offsets: Sequence[tf.Tensor]) -> bool:
        """See `Ball`."""
        fixed = all(
            bool(tf.reduce_all((scale > 0) | (offset == 0)))
            for scale, offset in zip(self.scales, offsets, strict=True)
        )
        return fixed and bool(
            self._length(offsets) <= self.rho * (1 + _ROUNDING)
        )

    def _length(self, offsets: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns `sqrt(sum_i (d_i / scale_i)^2)` over scales above zero."""
        return _norm(
            [
                tf.math.divide_no_nan(_float64(offset), _float64(scale))
                for scale, offset in zip(self.scales, offsets, strict=True)
            ]
        )


def units(
    weights: Sequence[tf.Tensor], *, adaptive: bool, eta: float = 0.0
) -> list[tf.Tensor]:
    """Returns the unit of each weight: 1, or `|w| + eta` if adaptive."""
    if adaptive:
        return [tf.abs(weight) + eta for weight in weights]
    return [tf.ones_like(weight) for weight in weights]


def _float64(value: tf.Tensor | float) -> tf.Tensor:
    # the hint: of a number of Python, which is not to pass through float32
    return tf.cast(
        tf.convert_to_tensor(value, dtype_hint=tf.float64), tf.float64
    )


def _norm(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean norm of all parts together, in float64."""
    squares = [tf.reduce_sum(tf.square(_float64(part))) for part in parts]
    return tf.sqrt(tf.add_n(squares))


def _size(parts: Sequence[tf.Tensor]) -> int:
    return sum(part.shape.num_elements() for part in parts)


def _split(flat: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Cuts a vector into tensors of the shapes and types of `like`."""
    cuts = np.cumsum([0, *(part.shape.num_elements() for part in like)])
    return [
        tf.cast(tf.reshape(flat[start:end], part.shape), part.dtype)
        for start, end, part in zip(cuts[:-1], cuts[1:], like, strict=True)
    ]
