"""Trains the model of a config into its run directory."""

from __future__ import annotations

import gc
import math
import os
import shutil
from typing import Any

import ml_collections
import tensorflow as tf

from qgen_tf import data, errors, measures, models
from qgen_tf.compat import keras
from qgen_tf.config import check_fields
from qgen_tf.quantization import align, calibrate, quantize_model
from qgen_tf.training import callbacks, optimizers, precision, strategies
from qgen_tf.training.loss_target import LossTarget
from qgen_tf.training.norms import reestimate_norms
from qgen_tf.training.qat_model import CosineRise, QATModel, check_settings
from qgen_tf.training.replicas import ReplicatedModel, even_batches
from qgen_tf.training.run_directory import (
    BACKUP_FOLDER,
    TRAINED_FILE,
    RunDirectory,
    atomic_path,
    float_config,
    is_quantized,
    run_path,
)
from qgen_tf.training.saved_model import (
    digests,
    load_model,
    save_weights,
    scheme,
)

_CALIBRATION_BATCH = 128
# whose loss is held against `training.stop_at_loss`
_TARGET_EXAMPLES = 10_000
_TARGET_BATCH = 256
# of decoded images that are kept for it
_CACHED_BYTES = 2**28


@errors.typed
def make_deterministic(seed: int, *, operations: bool = True) -> None:
    """Seeds this process, so that a rerun on the same machine is the same.

    Args:
      seed: of all global generators.
      operations: whether to choose, from the kernels of an operation, one that
        gives the same bits each time; others may be faster, above all on GPUs.
    """
    keras.utils.set_random_seed(seed)
    if operations:
        tf.config.experimental.enable_op_determinism()


def train(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> RunDirectory:
    """Trains a model, or goes on where a killed training stopped.

    A quantized model is fine-tuned from the float model of the same config,
    which is trained first if it is not there. A training that is finished is
    left as it is.

    All replicas of the strategy in whose scope this is called take part; see
    `get_strategy`. The strategy is no part of the config: the numbers are
    those of one device, up to the order of sums.

    Args:
      config: all of `qgen_tf.config.default_config`.
      workdir: folder of run directories; several workers share it.

    Returns:
      The finished run.

    Raises:
      UserError: the config is wrong, the data is missing, or training
        diverged.
    """
    check(config)
    finished = (run_path(workdir, config) / TRAINED_FILE).exists()
    if strategies.from_chief(float(finished)):
        run = RunDirectory.create(workdir, config)
        _remove_backup(run)
        return run
    splits = data.load(config.dataset)
    teacher = None
    with precision.policy(config.training.mixed_precision):
        if is_quantized(config):
            if config.quantization.overrides:
                # one that matches no layer must not wait for the float model
                quantize_model(_float_model(config, splits), scheme(config))
            parent = train(float_config(config), workdir)
            keras.utils.set_random_seed(config.seed)
            teacher = load_model(parent.path)
            model = _quantized(teacher, config, splits)
        else:
            keras.utils.set_random_seed(config.seed)
            model = _float_model(config, splits)
            models.start_from(
                model,
                config.training.pretrained,
                config.dataset.normalization,
            )
        run = RunDirectory.create(workdir, config)
        with run.locked():
            # another process may have finished it in the meantime
            if not strategies.from_chief(float(run.is_trained)):
                _fit(run, model, teacher, config, splits)
            # the files of the chief are there when any worker returns
            strategies.from_chief(0.0)
    return run


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a ConfigError for settings that cannot be trained with."""
    check_fields(config)
    quantization = config.quantization
    if is_quantized(config):
        scheme(config)
    check_settings(
        quantization.distillation,
        quantization.temperature,
        quantization.dampening,
    )
    precision.check_policy(config.training.mixed_precision)
    if not 0.0 <= config.training.stop_at_loss < math.inf:
        raise errors.ConfigError(
            f"training.stop_at_loss is {config.training.stop_at_loss}: set it "
            "to a loss in nats, or to 0 to train for all epochs."
        )
    for field, value, smallest in (
        ("training.epochs", config.training.epochs, 1),
        ("training.batch_size", config.training.batch_size, 1),
        ("quantization.epochs", quantization.epochs, 1),
        (
            "quantization.calibration_examples",
            quantization.calibration_examples,
            1,
        ),
        ("quantization.reestimate_norms", quantization.reestimate_norms, 0),
    ):
        if value < smallest:
            raise errors.ConfigError(
                f"{field} is {value}: it must be at least {smallest}."
            )


def _float_model(
    config: ml_collections.ConfigDict, splits: data.Splits
) -> keras.Model:
    return models.build(config.model, splits.image_shape, splits.num_classes)


def _quantized(
    model: keras.Model, config: ml_collections.ConfigDict, splits: data.Splits
) -> keras.Model:
    quantized = quantize_model(model, scheme(config))
    calibrate(
        quantized,
        splits.train.take(config.quantization.calibration_examples).batch(
            _CALIBRATION_BATCH
        ),
    )
    gc.collect()  # the copies in between hold themselves: memory for training
    return quantized


def _fit(
    run: RunDirectory,
    model: keras.Model,
    teacher: keras.Model | None,
    config: ml_collections.ConfigDict,
    splits: data.Splits,
) -> None:
    """Trains a float model, or a quantized one that has a teacher."""
    settings = config.training
    stage = config.quantization if teacher else settings
    steps = splits.steps_per_epoch(settings.batch_size)
    compiled = _compiled(model, teacher, config, stage.epochs * steps, steps)
    backup = callbacks.EpochBackup(run, model, compiled.optimizer)
    target = _loss_target(model, config, splits)
    done = backup.restore()
    strategies.share(model)
    if not done:
        save_weights(model, run, "initial.weights.h5")
    if done < stage.epochs and not target.is_reached(backup.history):
        stream = splits.training_stream(
            batch_size=settings.batch_size,
            seed=config.seed,
            epochs=stage.epochs,
            first_epoch=done,
        )
        if strategies.num_replicas() > 1:
            stream = even_batches(stream, settings.batch_size)
        with callbacks.progress(
            run.label, epochs=stage.epochs, steps=steps, done=done
        ) as progress:
            compiled.fit(
                stream,
                epochs=stage.epochs,
                initial_epoch=done,
                steps_per_epoch=steps,
                verbose=0,
                callbacks=[
                    callbacks.EpochSeed(config.seed),
                    target,
                    backup,
                    *progress,
                ],
            )
    if teacher and stage.reestimate_norms:
        stream = splits.training_stream(
            batch_size=settings.batch_size, seed=config.seed, epochs=1
        )
        batches = math.ceil(stage.reestimate_norms / settings.batch_size)
        reestimate_norms(model, stream.take(batches))
    if teacher:
        align(model)
    _finish(run, model, splits, backup, target)


def _loss_target(
    model: keras.Model, config: ml_collections.ConfigDict, splits: data.Splits
) -> LossTarget:
    predict = measures.predictor(model)
    examples = splits.train.take(_TARGET_EXAMPLES).batch(_TARGET_BATCH)
    num_bytes = 4 * math.prod(splits.image_shape)
    if num_bytes * min(splits.num_train, _TARGET_EXAMPLES) <= _CACHED_BYTES:
        examples = examples.cache()
    return LossTarget(
        config.training.stop_at_loss,
        # of the chief, so that all workers stop or none
        lambda: strategies.from_chief(
            measures.evaluate(predict, examples).loss
        ),
    )


def _compiled(
    model: keras.Model,
    teacher: keras.Model | None,
    config: ml_collections.ConfigDict,
    steps: int,
    steps_per_epoch: int,
) -> keras.Model:
    """Returns what trains the layers of `model`: the model or a view of it."""
    settings = config.training
    stage = config.quantization if teacher else settings
    trained = precision.with_float32_outputs(model)
    aids: dict[str, Any] = {}
    if teacher:
        aids = {
            "teacher": teacher if stage.distillation else None,
            "distillation": stage.distillation,
            "temperature": stage.temperature,
            "dampening": (
                CosineRise(stage.dampening, steps) if stage.dampening else 0.0
            ),
        }
    if strategies.num_replicas() > 1:
        trained = ReplicatedModel(trained, **aids)
    elif teacher:
        trained = QATModel(trained, **aids)
    trained.compile(
        optimizers.build(
            settings,
            learning_rate=stage.learning_rate,
            steps=steps,
            warmup_steps=round(settings.warmup_epochs * steps_per_epoch),
        ),
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    # of two types: float16 wraps the optimizer in one that scales the loss
    trained.optimizer.build(model.trainable_variables)
    return trained


def _finish(
    run: RunDirectory,
    model: keras.Model,
    splits: data.Splits,
    backup: callbacks.EpochBackup,
    target: LossTarget,
) -> None:
    with atomic_path(run.path / "history.csv") as path:
        backup.history.to_csv(path, index=False)
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
            "stopped_at_loss": target.reached,
            "sha256": digests(run),
        },
    )
    _remove_backup(run)


def _remove_backup(run: RunDirectory) -> None:
    """Removes the newest epoch, which a killed process may have left."""
    if strategies.is_chief():
        shutil.rmtree(run.path / BACKUP_FOLDER, ignore_errors=True)
