"""What happens between the epochs of a training."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import tensorflow as tf
import tqdm

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.training import strategies
from qgen_tf.training.run_directory import RunDirectory, atomic_path


class EpochBackup(keras.callbacks.Callback):
    """Keeps the newest epoch, so that a killed training goes on behind it.

    Weights, optimizer state and history return exactly; the data set and
    dropout are functions of the seed and the epoch. So a training that was
    killed ends with the same numbers as one that was not. Of several workers,
    the chief keeps it, and all of them return to it.
    """

    def __init__(
        self,
        run: RunDirectory,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
    ):
        super().__init__()
        self._folder = run.path / "backup"
        self._history_path = self._folder / "history.json"
        self._history: list[dict[str, float]] = []
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Every worker saves: replicas may have to be summed up to be read.
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=model, optimizer=optimizer, epoch=self._epoch
            ),
            str(
                self._folder
                if strategies.is_chief()
                else strategies.scratch() / "backup"
            ),
            max_to_keep=1,
        )

    def restore(self) -> int:
        """Returns to the newest epoch; returns how many are done.

        Raises:
          RunDirectoryError: a worker does not see the files of the chief.
        """
        newest = tf.train.latest_checkpoint(str(self._folder))
        if newest is not None:
            self._manager.checkpoint.restore(newest)
        done = int(self._epoch.numpy())
        if done != strategies.from_chief(done):
            raise errors.RunDirectoryError(
                f"{self._folder} is not that of the first worker: give all "
                "workers a --workdir on a disk that they share."
            )
        if done:
            self._history = json.loads(self._history_path.read_text())[:done]
        return done

    def on_epoch_end(self, epoch, logs=None):
        """Saves what was learned so far."""
        row = {name: float(value) for name, value in logs.items()}
        if not math.isfinite(row["loss"]):
            raise errors.ModelError(
                f"training diverged in epoch {epoch + 1}: the loss is "
                f"{row['loss']}; lower the learning rate."
            )
        self._history.append({"epoch": epoch + 1, **row})
        # The history first: `restore` drops a row that has no checkpoint.
        with atomic_path(self._history_path) as target:
            target.write_text(json.dumps(self._history))
        self._epoch.assign(epoch + 1)
        self._manager.save()

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        columns = None if self._history else ["epoch", "loss", "accuracy"]
        return pd.DataFrame(self._history, columns=columns)


class EpochSeed(keras.callbacks.Callback):
    """Makes dropout a function of the seed and the epoch."""

    def __init__(self, seed: int):
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        """Reseeds the generator of every layer that has one."""
        for index, layer in enumerate(self.model.layers):
            random = getattr(layer, "_random_generator", None)
            generator = getattr(random, "_generator", None)
            if generator is not None:
                mixed = np.random.SeedSequence([self._seed, index, epoch])
                generator.reset_from_seed(int(mixed.generate_state(1)[0]))


class ProgressBar(keras.callbacks.Callback):
    """One line for a whole training: epoch, time left, loss and accuracy."""

    def __init__(self, title: str, *, epochs: int, steps: int, done: int):
        super().__init__()
        self._epochs = epochs
        self._bar = tqdm.tqdm(
            total=epochs * steps,
            initial=done * steps,
            desc=title,
            unit="step",
            dynamic_ncols=True,
        )
        self._title = title

    def on_epoch_begin(self, epoch, logs=None):
        """Shows the number of the epoch."""
        self._bar.set_description(
            f"{self._title} epoch {epoch + 1}/{self._epochs}", refresh=False
        )

    def on_train_batch_end(self, batch, logs=None):
        """Counts a step."""
        self._bar.update()

    def on_epoch_end(self, epoch, logs=None):
        """Shows what the epoch reached."""
        self._bar.set_postfix(
            {name: f"{value:.4f}" for name, value in (logs or {}).items()}
        )

    def on_train_end(self, logs=None):
        """Leaves the line as it stands."""
        self._bar.close()
