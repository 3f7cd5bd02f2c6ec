"""Bundles of a small network on the digits."""

import functools
import hashlib
import json

import tensorflow as tf

from export import bundle, run_on_device, tflite
from qgen_tf.quantization import BitScheme, inference_model
from tests import harness
from tests.export.files import deployed

COUNTS = {"train": 70, "test": 41}  # more than a batch, and less


@functools.cache
def network(bits=8):
    """Returns a deployed network; float for 32 bits."""
    model = harness.randomize_norms(harness.residual())
    return (
        inference_model(model)
        if bits == 32
        else deployed(model, BitScheme(bits))
    )


@functools.cache
def content(bits=8, storage="int8"):
    return tflite.convert(network(bits), storage=storage)


def examples(split):
    """Returns (images, labels) of a split."""
    images, labels = harness.digits()
    start = 0 if split == "train" else harness.NUM_TRAIN
    chosen = slice(start, start + COUNTS[split])
    return images[chosen], labels[chosen]


def splits():
    return {
        split: tf.data.Dataset.from_tensor_slices(examples(split))
        for split in COUNTS
    }


def write(folder, file=None, **settings):
    """Writes the bundle of a file, or of one of 8 bits."""
    settings.setdefault("facts", {"run": "tiny"})
    return bundle.write(folder, file or content(), splits(), **settings)


def change(folder, name, new):
    """Changes a file and the manifest, as a forger would."""
    (folder / name).write_bytes(new)
    path = folder / run_on_device.MANIFEST_FILE
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {
        "sha256": hashlib.sha256(new).hexdigest(),
        "num_bytes": len(new),
    }
    path.write_text(json.dumps(manifest))


def run(folder, **settings):
    """Runs a bundle in this process; returns the result."""
    manifest = run_on_device.read_manifest(str(folder))
    defaults = {
        "num_threads": 1,
        "kernels": manifest["kernels"],
        "batch_size": 32,
        "num_latency_runs": 3,
    }
    return run_on_device.run(str(folder), manifest, **{**defaults, **settings})
