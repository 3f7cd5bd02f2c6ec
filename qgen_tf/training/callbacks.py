"""What happens between the epochs of a training."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
import tensorflow as tf
import tqdm

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.training import strategies
from qgen_tf.training.run_directory import BACKUP_FOLDER, RunDirectory
from qgen_tf.training.writing import atomic_path, refusals


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
        self._kept = model
        self._folder = run.path / BACKUP_FOLDER
        self._history_path = self._folder / "history.json"
        self._history: list[dict[str, float]] = []
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Every worker saves: replicas may have to be summed up to be read.
        with _undamaged(self._folder), refusals(self._folder):
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
          RunDirectoryError: it is damaged, or a worker does not see the files
            of the chief.
        """
        with _undamaged(self._folder):
            newest = tf.train.latest_checkpoint(str(self._folder))
            if newest is not None:
                self._manager.checkpoint.restore(newest)
            done = int(self._epoch.numpy())
            if done:
                history = json.loads(self._history_path.read_text())[:done]
                if len(history) < done:
                    raise ValueError(f"no row of epoch {done} in the history")
                self._history = history
        if done != strategies.from_chief(done):
            raise errors.RunDirectoryError(
                f"{self._folder} is not that of the first worker: give all "
                "workers a --workdir on a disk that they share."
            )
        return done

    def on_epoch_end(self, epoch, logs=None):
        """Saves what was learned so far.

        Raises:
          ModelError: the loss or a weight is no finite number.
          RunDirectoryError: it cannot be written.
        """
        row = {name: float(value) for name, value in logs.items()}
        self._require_finite(epoch, row["loss"])
        self._history.append({"epoch": epoch + 1, **row})
        # The history first: `restore` drops a row that has no checkpoint.
        with atomic_path(self._history_path) as target:
            target.write_text(json.dumps(self._history))
        self._epoch.assign(epoch + 1)
        with refusals(self._folder):
            self._manager.save()

    def _require_finite(self, epoch: int, loss: float) -> None:
        """Raises a ModelError unless the loss and all weights are finite."""
        what = f"the loss is {loss}"
        if math.isfinite(loss):
            # the loss of the last step is that of the weights before it
            weights = zip(
                self._kept.weights, self._kept.get_weights(), strict=True
            )
            wrong = [w.name for w, value in weights if _is_strange(value)]
            if not wrong:
                return
            what = f"{wrong[0]} is not finite"
        raise errors.ModelError(
            f"training diverged in epoch {epoch + 1}: {what}; lower the "
            "learning rate."
        )

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        columns = None if self._history else ["epoch", "loss", "accuracy"]
        return pd.DataFrame(self._history, columns=columns)


def _is_strange(values: np.ndarray) -> bool:
    return not np.isfinite(values).all()


@contextlib.contextmanager
def _undamaged(folder: pathlib.Path) -> Iterator[None]:
    """Raises a RunDirectoryError if what was kept cannot be read."""
    try:
        yield
    except (
        *(tf.errors.OpError, OSError),
        *(IndexError, TypeError, ValueError),
    ) as error:
        reason = " ".join(str(error).split())
        raise errors.RunDirectoryError(
            f"{folder} is damaged ({reason}): delete that folder to train from "
            "the first epoch on."
        ) from error


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

    def close(self):
        """Leaves the line as it stands."""
        self._bar.close()


@contextlib.contextmanager
def progress(
    title: str, *, epochs: int, steps: int, done: int
) -> Iterator[list[ProgressBar]]:
    """Gives what shows progress: nothing, on all workers but the chief."""
    if not strategies.is_chief():
        yield []
        return
    bar = ProgressBar(title, epochs=epochs, steps=steps, done=done)
    with contextlib.closing(bar):
        yield [bar]
