"""Measures as published code has them: a model copy, a pass for each draw."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

_STEPS = 15  # of the bisection
_DRAWS = 10  # at each
_MORE_DRAWS = 40  # ten leave their own spread unknown by a quarter
_SHARPNESS_DRAWS = 20
_SHARPNESS_SIGMA = 0.01
_ASCENT_STEPS = 20
_EPSILON = 1e-3  # of adaptive Gaussian noise
_NEXT = 1.15  # second scale, for the slope
ALPHA_EPSILON = 1e-5  # of adaptive worst-case offsets


@dataclasses.dataclass(frozen=True)
class Found:
    """What a plain measure found.

    Attributes:
      value: of the measure; for a search, the scale it was given, moved to
        where the drop crosses the target.
      standard_error: over draws; 0 if nothing is known of it.
      seconds: it took, or would take with all steps of the bisection.
    """

    value: float
    standard_error: float
    seconds: float


class PlainNetwork:
    """A deployed network, and a copy that is perturbed and evaluated."""

    def __init__(self, model: Any, dataset: Any):
        """Copies and compiles; evaluates once, so that all is compiled."""
        import tensorflow as tf

        from qgen_tf.compat import keras
        from qgen_tf.measures import perturbations
        from qgen_tf.quantization import inference_model

        self._copy = inference_model(model).model
        self._copy.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self._dataset = dataset
        self._weights = perturbations.kernels(self._copy)
        self._originals = [weight.numpy() for weight in self._weights]
        self._generator = np.random.default_rng(0)
        self._loss, self._accuracy = self._evaluate()
        self._batches = iter(dataset.repeat())

        @tf.function(reduce_retracing=True)
        def gradient(images, labels):
            with tf.GradientTape() as tape:
                logits = self._copy(images, training=False)
                loss = self._copy.compiled_loss(labels, logits)
            return tape.gradient(loss, self._weights)

        self._gradient = gradient
        self._gradient(*next(self._batches))

    def average_sharpness(self, value: float, *, adaptive: bool) -> Found:
        """Mean rise in loss over draws; `value` is not needed."""
        del value
        start = time.perf_counter()
        rises = []
        for _ in range(_SHARPNESS_DRAWS):
            self._set(self._noise(_SHARPNESS_SIGMA, adaptive, epsilon=0.0))
            rises.append(self._evaluate()[0] - self._loss)
        seconds = time.perf_counter() - start
        self._set([0.0] * len(self._weights))
        error = np.std(rises, ddof=1) / _SHARPNESS_DRAWS**0.5
        return Found(float(np.mean(rises)), float(error), seconds)

    def sigma(self, value: float, *, adaptive: bool) -> Found:
        """Gaussian noise that costs 0.1 of the accuracy, near `value`."""
        start = time.perf_counter()
        drops = []
        for sigma in (value, value * _NEXT):
            drops.append([])
            for _ in range(_MORE_DRAWS):
                self._set(self._noise(sigma, adaptive, epsilon=_EPSILON))
                drops[-1].append(self._accuracy - self._evaluate()[1])
        seconds = (time.perf_counter() - start) / (2 * _MORE_DRAWS)
        seconds *= _STEPS * _DRAWS
        self._set([0.0] * len(self._weights))
        here, beyond = np.mean(drops, axis=1)
        slope = (beyond - here) / math.log(_NEXT)
        error = value * np.std(drops[0], ddof=1) / _DRAWS**0.5 / abs(slope)
        crossing = value * math.exp((0.1 - here) / slope)
        return Found(crossing, float(error), seconds)

    def alpha(self, value: float, *, adaptive: bool) -> Found:
        """Largest drop within `value` is sought; one step of the bisection."""
        start = time.perf_counter()
        radii = [
            value * np.abs(w) + ALPHA_EPSILON if adaptive else value
            for w in self._originals
        ]
        for _ in range(_DRAWS):
            offsets = [
                radius * self._generator.uniform(-0.5, 0.5, w.shape)
                for radius, w in zip(radii, self._originals, strict=True)
            ]
            for _ in range(_ASCENT_STEPS):
                self._set(offsets)
                slopes = self._gradient(*next(self._batches))
                offsets = [
                    np.clip(o + r / 4 * np.sign(slope), -r, r)
                    for o, r, slope in zip(offsets, radii, slopes, strict=True)
                ]
            self._set(offsets)
            self._evaluate()
        seconds = (time.perf_counter() - start) * _STEPS
        self._set([0.0] * len(self._weights))
        return Found(value, 0.0, seconds)

    def _noise(
        self, sigma: float, adaptive: bool, *, epsilon: float
    ) -> list[np.ndarray]:
        noise = []
        for weight in self._originals:
            scale = np.hypot(sigma * weight, epsilon) if adaptive else sigma
            noise.append(scale * self._generator.normal(size=weight.shape))
        return noise

    def _set(self, offsets: Any) -> None:
        for weight, original, offset in zip(
            self._weights, self._originals, offsets, strict=True
        ):
            weight.assign((original + offset).astype(np.float32))

    def _evaluate(self) -> tuple[float, float]:
        return self._copy.evaluate(self._dataset, verbose=0)
