"""Trainings that end at a loss."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from qgen_tf.compat import keras

# how many times an epoch the loss is looked at, once it is near: below so many
# times the target
_CHECKS = 8
_NEAR = 2.0


class LossTarget(keras.callbacks.Callback):
    """Ends a training whose loss on the training set has reached a target.

    Models of one loss can be compared: otherwise, bits and training loss are
    confounded (Jiang et al. 2020, arXiv 1912.02178, stop at 0.01 nats). The
    loss is looked at after each epoch, and eight times an epoch once it is
    below twice the target: a whole epoch would take it far below. The loss at
    the end of an epoch is written into its row of the history.
    """

    def __init__(self, target: float, evaluate: Callable[[], float]):
        """Initializes the callback.

        Args:
          target: in nats; 0 never ends a training, and evaluates nothing.
          evaluate: returns the loss now, in nats.
        """
        super().__init__()
        self._target = target
        self._evaluate = evaluate
        self._loss: float | None = None

    @property
    def reached(self) -> float | None:
        """The loss that ended the training; None if none did."""
        reached = self._loss is not None and self._loss <= self._target
        return self._loss if reached else None

    def is_reached(self, history: pd.DataFrame) -> bool:
        """Whether no training is needed, before it begins or goes on.

        Args:
          history: a row for each epoch so far; without any, the loss of the
            model as it is counts.
        """
        if self._target:
            if history.empty:
                self._loss = self._evaluate()
            else:
                self._loss = float(history["train_loss"].iloc[-1])
        return self.reached is not None

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss between epochs, too, when it is near."""
        interval = max(1, self.params["steps"] // _CHECKS)
        done = batch + 1
        if (
            self._loss is not None
            and self._loss <= _NEAR * self._target
            and done % interval == 0
            and done < self.params["steps"]
        ):
            self._look()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the loss; comes before what writes the history."""
        if self._target:
            if not self.model.stop_training:
                self._look()
            logs["train_loss"] = self._loss

    def _look(self) -> None:
        self._loss = self._evaluate()
        if self.reached is not None:
            self.model.stop_training = True
