"""The smallest config that trains: seconds on one core."""

import atexit
import functools
import pathlib
import shutil
import tempfile

import ml_collections

from qgen_tf.config import default_config


def config(**training) -> ml_collections.ConfigDict:
    """Returns a config; `training` changes fields of that part."""
    tiny = default_config()
    tiny.name = "tiny"
    tiny.dataset.image_size = 8
    tiny.dataset.num_train = 200
    tiny.dataset.num_test = 100
    tiny.model.width = 8
    tiny.model.depth = 1
    tiny.training.update({"epochs": 3, "learning_rate": 1e-2, **training})
    tiny.quantization.update({"epochs": 1, "calibration_examples": 64})
    tiny.twins = ((4, 8),)
    tiny.measures.num_examples = 64
    tiny.measures.average_sharpness.num_samples = 2
    tiny.measures.pac_bayes_sigma.num_samples = 2
    tiny.measures.pac_bayes_sigma.max_samples = 2
    return tiny


def runs(config: ml_collections.ConfigDict, workdir) -> list:
    """Runs every trial of a config, one after the other, in this process."""
    from qgen_tf.study import design, trial

    return [
        trial.run(one.config, workdir) for one in design.trials(config, workdir)
    ]


@functools.cache
def _finished() -> list:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return runs(config(), folder.name)


def copies(workdir) -> list:
    """Copies a float run and its twin of 4 bits, that have every stage behind.

    They are made once in this process.
    """
    from qgen_tf.training import RunDirectory

    return [
        RunDirectory(
            shutil.copytree(run.path, pathlib.Path(workdir, run.path.name))
        )
        for run in _finished()
    ]


def stop_after(monkeypatch, epochs: int) -> None:
    """Makes a training die right behind the backup of an epoch."""
    from qgen_tf.training.callbacks import EpochBackup

    original = EpochBackup.on_epoch_end

    def dying(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochBackup, "on_epoch_end", dying)
