"""Trains the model of a config into its run directory."""

from __future__ import annotations

import os
import shutil

import ml_collections
import tensorflow as tf

from qgen_tf import data, errors, models
from qgen_tf.compat import keras
from qgen_tf.quantization import BitScheme, calibrate, quantize_model
from qgen_tf.training import callbacks, optimizers
from qgen_tf.training.run_directory import (
    TRAINED_FILE,
    RunDirectory,
    atomic_path,
    float_config,
    is_quantized,
    run_path,
)

_CALIBRATION_BATCH = 128


def make_deterministic(seed: int) -> None:
    """Seeds this process and makes every TensorFlow operation repeatable."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> RunDirectory:
    """Trains a model, or goes on where a killed training stopped.

    A quantized model is fine-tuned from the float model of the same config,
    which is trained first if it is not there. A training that is finished is
    left as it is.

    Args:
      config: all of `qgen_tf.config.default_config`.
      workdir: folder of run directories.

    Returns:
      The finished run.

    Raises:
      UserError: the config is wrong, the data is missing, or training
        diverged.
    """
    check(config)
    if (run_path(workdir, config) / TRAINED_FILE).exists():
        run = RunDirectory.create(workdir, config)
        _remove_backup(run)
        return run
    splits = data.load(config.dataset)
    if is_quantized(config):
        parent = train(float_config(config), workdir)
        stage = config.quantization
        keras.utils.set_random_seed(config.seed)
        model = _quantized(load_model(parent.path), config, splits)
    else:
        stage = config.training
        keras.utils.set_random_seed(config.seed)
        model = models.build(
            config.model, splits.image_shape, splits.num_classes
        )
    run = RunDirectory.create(workdir, config)
    _fit(run, model, config, splits, stage.epochs, stage.learning_rate)
    return run


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a ConfigError for numbers that cannot be trained with."""
    if is_quantized(config):
        _scheme(config)
    for field, value in (
        ("training.epochs", config.training.epochs),
        ("training.batch_size", config.training.batch_size),
        ("quantization.epochs", config.quantization.epochs),
        (
            "quantization.calibration_examples",
            config.quantization.calibration_examples,
        ),
    ):
        if value < 1:
            raise errors.ConfigError(
                f"{field} is {value}: it must be at least 1."
            )


def _scheme(config: ml_collections.ConfigDict) -> BitScheme:
    bits = config.quantization
    return BitScheme(
        weight_bits=bits.weight_bits,
        activation_bits=bits.activation_bits,
        first_last_bits=bits.first_last_bits,
        per_axis=bits.per_axis,
    )


def _quantized(
    model: keras.Model, config: ml_collections.ConfigDict, splits: data.Splits
) -> keras.Model:
    quantized = quantize_model(model, _scheme(config))
    calibrate(
        quantized,
        splits.train.take(config.quantization.calibration_examples).batch(
            _CALIBRATION_BATCH
        ),
    )
    return quantized


def _fit(
    run: RunDirectory,
    model: keras.Model,
    config: ml_collections.ConfigDict,
    splits: data.Splits,
    epochs: int,
    learning_rate: float,
) -> None:
    settings = config.training
    steps = splits.steps_per_epoch(settings.batch_size)
    optimizer = optimizers.build(
        settings,
        learning_rate=learning_rate,
        steps=epochs * steps,
        warmup_steps=round(settings.warmup_epochs * steps),
    )
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    optimizer.build(model.trainable_variables)
    backup = callbacks.EpochBackup(run, model, optimizer)
    done = backup.restore()
    if not done:
        save_weights(model, run, "initial.weights.h5")
    stream = splits.training_stream(
        batch_size=settings.batch_size,
        seed=config.seed,
        epochs=epochs,
        first_epoch=done,
    )
    if done < epochs:
        model.fit(
            stream,
            epochs=epochs,
            initial_epoch=done,
            steps_per_epoch=steps,
            verbose=0,
            callbacks=[
                callbacks.EpochSeed(config.seed),
                backup,
                callbacks.ProgressBar(
                    run.label, epochs=epochs, steps=steps, done=done
                ),
            ],
        )
    _finish(run, model, splits, backup)


def _finish(
    run: RunDirectory,
    model: keras.Model,
    splits: data.Splits,
    backup: callbacks.EpochBackup,
) -> None:
    with atomic_path(run.path / "history.csv") as target:
        backup.history.to_csv(target, index=False)
    save_weights(model, run, "final.weights.h5")
    run.write_json(
        TRAINED_FILE,
        {
            "image_shape": splits.image_shape,
            "num_classes": splits.num_classes,
            "num_train": splits.num_train,
            "num_test": splits.num_test,
            "parameters": model.count_params(),
            "epochs": len(backup.history),
        },
    )
    _remove_backup(run)


def _remove_backup(run: RunDirectory) -> None:
    """Removes the newest epoch, which a killed process may have left."""
    shutil.rmtree(run.path / "backup", ignore_errors=True)


def save_weights(model: keras.Model, run: RunDirectory, name: str) -> None:
    """Writes the weights of `model` into a run, whole or not at all."""
    # A view that is not compiled: optimizer and metrics are not of the model.
    weights_only = keras.Model(model.inputs, model.outputs)
    with atomic_path(run.path / name) as target:
        weights_only.save_weights(target)


def load_model(run_dir: str | os.PathLike[str]) -> keras.Model:
    """Returns the trained model of a run directory.

    The model is built anew from the config and given its weights: no scope, no
    custom objects, no code from the file.

    Args:
      run_dir: written by `qgen-train`.

    Raises:
      RunDirectoryError: there is no finished run, or its weights are damaged.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    config = run.config
    facts = run.read_json(TRAINED_FILE)
    model = models.build(
        config.model, tuple(facts["image_shape"]), facts["num_classes"]
    )
    if is_quantized(config):
        model = quantize_model(model, _scheme(config))
    path = run.path / "final.weights.h5"
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise errors.RunDirectoryError(
            f"{path} cannot be read ({error}): delete {run.path} and train "
            "again."
        ) from error
    return model
