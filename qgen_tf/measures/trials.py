"""What moved weights cost, tried on parts of the data in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from qgen_tf import reading
from qgen_tf.measures.objective import Objective
from qgen_tf.measures.perturbations import Neighbourhood
from qgen_tf.measures.search import Crossing

# Of a part at least: it has examples from all over the data, whose order need
# not be random.
_BATCHES = 4


class Trials:
    """Loss and accuracy under offsets of the weights.

    Attributes:
      num_examples: of the data.
      num_parts: into which every so many-th batch goes.
      num_seen: examples that were evaluated so far, each time anew.
    """

    def __init__(
        self, near: Neighbourhood, dataset: tf.data.Dataset, part_size: int
    ):
        """Divides the data.

        Args:
          near: whose weights move.
          dataset: its data.
          part_size: examples of a part, about; of more than half of the data
            there is one part, which is all of it.
        """
        self.num_seen = 0
        dataset = reading.untuned(dataset)
        sizes = [len(labels) for _, labels in dataset]
        self.num_examples = sum(sizes)
        self.num_parts = max(1, self.num_examples // part_size)
        batch_size = max(sizes)
        if 1 < self.num_parts and len(sizes) < _BATCHES * self.num_parts:
            size = max(1, part_size // _BATCHES)
            dataset = dataset.rebatch(size)
            starts = range(0, self.num_examples, size)
            sizes = [min(size, self.num_examples - start) for start in starts]
        self._near = near
        self._sizes = sizes
        self._parts = [near.objective]
        if self.num_parts > 1:
            self._parts = near.objective.parts(
                dataset, self.num_parts, batch_size
            )
        self._unmoved: dict[int, tuple[float, float]] = {}

    def part(self, draw: int) -> Objective:
        """Returns the objective on the part whose turn it is at a draw."""
        return self._parts[draw % self.num_parts]

    def part_size(self, draw: int) -> int:
        """Returns the number of examples of `part(draw)`."""
        return sum(self._sizes[draw % self.num_parts :: self.num_parts])

    def drop(self, offsets: Sequence[tf.Tensor]) -> float:
        """Returns the accuracy that offsets cost, on all data."""
        self.num_seen += self.num_examples
        return self._near.accuracy - self._near.at(offsets)[1]

    def drop_on_part(self, draw: int, offsets: Sequence[tf.Tensor]) -> float:
        """Returns the accuracy that offsets cost, on `part(draw)`."""
        return self.unmoved(draw)[1] - self.at(draw, offsets)[1]

    def unmoved(self, draw: int) -> tuple[float, float]:
        """Returns loss and accuracy of the weights as they are, on a part."""
        if self.num_parts == 1:
            return self._near.loss, self._near.accuracy
        index = draw % self.num_parts
        if index not in self._unmoved:
            self._near.put_back()
            self._unmoved[index] = self._on_part(draw)
        return self._unmoved[index]

    def at(
        self, draw: int, offsets: Sequence[tf.Tensor], scale: float = 1.0
    ) -> tuple[float, float]:
        """Returns loss and accuracy at `scale * offsets`, on `part(draw)`."""
        self._near.move(offsets, scale)
        return self._on_part(draw)

    def _on_part(self, draw: int) -> tuple[float, float]:
        self.num_seen += self.part_size(draw)
        return self.part(draw)()

    def details(self, found: Crossing) -> dict[str, Any]:
        """Returns what a measure reports on its search.

        `num_passes` counts readings of all the data.
        """
        return {
            "accuracy": self._near.accuracy,
            "hit_bound": found.hit_bound,
            "drop": found.drop,
            "bracket": list(found.bracket),
            "num_draws": found.num_draws,
            "num_examples": self.num_examples,
            "num_weights": self._near.num_weights,
            "num_passes": self.num_seen / self.num_examples,
        }
