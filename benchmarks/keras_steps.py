"""Training steps of legacy Keras models, for `qat_overhead`.

Run as `python -m benchmarks.keras_steps CONTENDER LIBRARY MODEL BATCH_SIZE
THREADS`; LIBRARY is loaded first.
"""

from __future__ import annotations

import gc
import importlib
import re
import sys
from typing import Any

import numpy as np

from benchmarks import step_worker

_IMAGE_SHAPE = (32, 32, 3)
_NUM_CLASSES = 10
_CALIBRATION_BATCH = 32


def _ours(model: Any, images: np.ndarray, bits: re.Match[str]) -> Any:
    """Quantizes weights and activations as `wXaY` says, by LSQ."""
    import tensorflow as tf

    import qgen_tf

    twin = qgen_tf.quantize_model(
        model, qgen_tf.BitScheme(int(bits[1]), int(bits[2]))
    )
    dataset = tf.data.Dataset.from_tensor_slices(images)
    qgen_tf.calibrate(twin, dataset.batch(_CALIBRATION_BATCH))
    return twin


def _tfmot(model: Any) -> Any:
    """Quantizes by tfmot's default 8-bit scheme."""
    import tensorflow_model_optimization as tfmot

    return tfmot.quantization.keras.quantize_model(model)


def _qkeras(model: Any) -> Any:
    """Puts QKeras's 4-bit layers in the place of those they are made from.

    Values before an addition stay float: QKeras has no layer around
    BatchNorm's output, and its examples leave it so.
    """
    import qkeras

    from qgen_tf.compat import keras

    kernel = {
        "kernel_quantizer": qkeras.quantized_bits(4, 0, 1, alpha=1.0),
        "bias_quantizer": None,
    }

    def convert(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            return qkeras.QConv2D(**{**config, **kernel})
        if isinstance(layer, keras.layers.Dense):
            return qkeras.QDense(**{**config, **kernel})
        if isinstance(layer, keras.layers.ReLU):
            return qkeras.QActivation("quantized_relu(4)", name=layer.name)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=convert)


def _contender(name: str, model: Any, images: np.ndarray) -> Any:
    """Returns the model that trains under `name`."""
    bits = re.fullmatch(r"w(\d+)a(\d+)", name)
    if bits:
        return _ours(model, images, bits)
    convert = {"float": lambda model: model, "tfmot": _tfmot, "qkeras": _qkeras}
    return convert[name](model)


def main() -> None:
    """Serves the contender that the command line names."""
    contender, library, model_name, batch_size, threads = sys.argv[1:]
    import tensorflow as tf

    from qgen_tf import models
    from qgen_tf.compat import keras

    importlib.import_module(library)
    if int(threads):
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
        tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    generator = np.random.default_rng(0)
    images = generator.normal(size=(int(batch_size), *_IMAGE_SHAPE))
    images = images.astype(np.float32)
    labels = generator.integers(_NUM_CLASSES, size=len(images))

    model = models.MODELS[model_name](_IMAGE_SHAPE, _NUM_CLASSES)
    model = _contender(contender, model, images)
    gc.collect()  # what it was made from holds itself
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # what fit calls for each batch
    step = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    step_worker.serve(lambda: step(batches)["loss"].numpy())


if __name__ == "__main__":
    main()
