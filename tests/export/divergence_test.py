import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from export import tflite
from export.divergence import explain
from export.model_file import pack, parse
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models.swin import cifar_swin
from qgen_tf.models.vit import cifar_vit
from qgen_tf.quantization import (
    ActivationGrid,
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness

GRIDS = {
    harness.tiny_nin: 8,
    harness.residual: 5,
    harness.mobile: 7,
}


def _network(build, bits=(4, 4)):
    return inference_model(harness.calibrated(build, BitScheme(*bits)))


def _images():
    return harness.test_images()[:70]  # two batches and a part of one


@pytest.mark.parametrize("build", GRIDS)
def test_a_file_does_not_diverge(build):
    network = _network(build)
    rows = explain(network, tflite.convert(network), _images())
    names = [layer.name for layer in network.model.layers]
    order = [names.index(row.layer) for row in rows]
    assert order == sorted(set(order))
    assert rows[-1].layer == names[-1] == "logits_grid"
    assert len(rows) == GRIDS[build]
    # XNNPACK's factor of a mean over all pixels is known to some 20 bits only,
    # and calibrated, untrained step sizes make means that lie between levels
    exact = itertools.takewhile(lambda row: row.layer != "pool_grid", rows)
    assert {row.max_steps for row in exact} == {0.0}
    assert max(row.max_steps for row in rows) <= 1.0
    assert max(row.share for row in rows) < 0.15


def _vit():
    return cifar_vit((8, 8, 1), 10, patch_size=4, width=8, depth=1, num_heads=2)


def _swin():
    return cifar_swin(
        (8, 8, 1),
        10,
        patch_size=2,
        width=8,
        depths=(2,),
        num_heads=(2,),
        window_size=2,
    )


@functools.cache
def _transformer(build):
    """Returns a network with random weights, and its file."""
    keras.utils.set_random_seed(3)
    model = build()
    for weight in model.trainable_weights:  # scores that differ
        weight.assign_add(0.2 * tf.random.normal(weight.shape))
    twin = quantize_model(model, BitScheme(8, 8))
    calibrate(twin, harness.calibration_data())
    network = inference_model(twin)
    return network, tflite.convert(network)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
@pytest.mark.parametrize(
    "build", [_vit, pytest.param(_swin, marks=pytest.mark.full)]
)
def test_a_transformer_does_not_diverge(build, kernels):
    network, content = _transformer(build)
    rows = explain(network, content, _images(), kernels=kernels)
    names = [
        layer.name
        for layer in network.model.layers
        if isinstance(layer, ActivationGrid)
    ]
    # of all grids but that of the images
    assert sorted(row.layer for row in rows) == sorted(names[1:])
    assert {row.layer for row in rows if row.max_steps > 0.0} == set()


def _with_changed_level(content, layer):
    """Moves one weight of a layer by some levels."""
    model = parse(content)
    (tensor,) = (
        tensor
        for tensor in model.subgraphs[0].tensors
        if tensor.name.decode() == layer
    )
    levels = np.array(model.buffers[tensor.buffer].data).view(np.int8)
    levels[levels.size // 2] += 20
    model.buffers[tensor.buffer].data = levels.view(np.uint8)
    return pack(model)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_names_the_first_layer_that_diverges(kernels):
    network = _network(harness.residual, (8, 8))
    content = _with_changed_level(tflite.convert(network), "branch")
    rows = explain(network, content, _images(), kernels=kernels)
    found = {row.layer: row for row in rows}
    assert found["stem_relu_grid"].max_steps == 0.0
    assert found["shortcut_grid"].max_steps == 0.0
    first = next(row for row in rows if row.max_steps > 0.0)
    assert first.layer == "branch_bn_grid"
    # one of 12 channels differs, in many of its values
    assert 0.02 < first.share <= 1 / 12
    assert first.share <= first.mean_steps < first.max_steps
    assert found["add_relu_grid"].max_steps > 0.0


def test_differences_are_those_of_the_values():
    network = _network(harness.tiny_nin, (8, 8))
    content = tflite.convert(network)
    # a bias of the last layer moved by as many sums as make 3 steps
    model = parse(content)
    (tensor,) = (
        tensor
        for tensor in model.subgraphs[0].tensors
        if tensor.name.decode() == "logits/bias"
    )
    grid = network.weight_grids["logits"]
    names = {layer.name: layer for layer in network.model.layers}
    inputs = names["logits"].input.node.layer
    sums = names["logits_grid"].step_size / (
        grid.step_size.reshape(-1)[0] * inputs.step_size
    )
    biases = np.array(model.buffers[tensor.buffer].data).view(np.int32)
    biases[0] += round(3 * sums)
    model.buffers[tensor.buffer].data = biases.view(np.uint8)
    *before, last = explain(network, pack(model), _images())
    assert {row.max_steps for row in before} == {0.0}
    assert last.max_steps in (3.0, 4.0)
    assert 0.05 < last.share <= 0.1  # one of ten classes, but where it is cut
    assert abs(last.mean_steps - 3.0 * last.share) < 0.3 * last.share


def test_refuses_a_float_network():
    network = inference_model(harness.tiny_nin())
    with pytest.raises(errors.ExportError, match="float network"):
        explain(network, tflite.convert(network), _images())
