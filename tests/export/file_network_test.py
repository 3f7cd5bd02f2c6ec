"""The weights of a file, put back into the network that it came from."""

import dataclasses
import functools

import numpy as np
import pytest

from export import tflite
from export.file_network import file_network
from export.model_file import pack, parse
from qgen_tf import errors
from qgen_tf.quantization import BitScheme, inference_model
from tests import harness, layer_nets
from tests.export.files import deployed

_NETWORKS = {
    "float": (harness.mobile, None),
    "w4a8": (harness.mobile, BitScheme(4, 8)),
    "per_tensor": (harness.residual, BitScheme(3, 8, per_axis=False)),
    "w1a8": (harness.tiny_nin, BitScheme(1, 8)),
    "affine": (layer_nets.NETS["pre_activation"], harness.W8A8),
    "attention": (layer_nets.NETS["attention"], harness.W8A8),
    "layer_norm": (layer_nets.NETS["layer_norm"], harness.W8A8),
    "transposed": (layer_nets.NETS["transposed"], harness.W8A8),
}


@functools.cache
def _exported(name):
    """Returns (deployed network, file); do not change the network."""
    build, scheme = _NETWORKS[name]
    model = layer_nets.randomized(build)
    network = (
        inference_model(model) if scheme is None else deployed(model, scheme)
    )
    return network, tflite.convert(network)


def _copy(network):
    """Returns the network around a model of its own, with all weights zero."""
    model = type(network.model).from_config(network.model.get_config())
    model.set_weights([np.zeros_like(v) for v in network.model.get_weights()])
    return dataclasses.replace(network, model=model)


def _changed(content, change):
    """Returns a file whose object tree was given to `change`."""
    model = parse(content)
    change(model, model.subgraphs[0].tensors)
    return pack(model)


def _tensor(tensors, name):
    (tensor,) = [t for t in tensors if t.name.decode() == name]
    return tensor


@pytest.mark.parametrize("name", _NETWORKS)
def test_nothing_of_the_weights_is_lost(name):
    network, content = _exported(name)
    copy = _copy(network)
    found = file_network(copy, content)
    assert found.model is copy.model
    for one, other in zip(
        found.model.get_weights(), network.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other, strict=True)
    for kind in (
        *("weight_grids", "affine_grids"),
        *("constant_grids", "norm_grids"),
    ):
        grids = getattr(network, kind)
        assert list(getattr(found, kind)) == list(grids)
        for layer, grid in getattr(found, kind).items():
            for field, value in dataclasses.asdict(grids[layer]).items():
                np.testing.assert_array_equal(getattr(grid, field), value)
    assert found.name == network.name


def test_levels_scales_and_biases_are_those_of_the_file():
    network, content = _exported("w4a8")

    def change(model, tensors):
        weight, bias = (
            _tensor(tensors, name) for name in ("project", "project/bias")
        )
        data = model.buffers[weight.buffer].data.view(np.int8).copy()
        data[0] = 7 if data[0] < 7 else -7
        model.buffers[weight.buffer].data = data.view(np.uint8)
        scales = weight.quantization.scale.copy()
        scales[1] *= 2.0
        weight.quantization.scale = scales
        data = model.buffers[bias.buffer].data.view(np.int32).copy()
        data[0] += 100
        model.buffers[bias.buffer].data = data.view(np.uint8)

    found = file_network(_copy(network), _changed(content, change))
    old, new = network.weight_grids["project"], found.weight_grids["project"]
    # the file has the output channels first
    assert (old.levels != new.levels).sum() == 1
    assert new.levels[0, 0, 0, 0] in (7, -7)
    kernel, bias = found.model.get_layer("project").get_weights()
    np.testing.assert_array_equal(kernel, new.values)
    np.testing.assert_array_equal(kernel[..., 1], 2.0 * old.values[..., 1])
    np.testing.assert_array_equal(kernel[..., 2:], old.values[..., 2:])
    before = network.model.get_layer("project").get_weights()[1]
    steps = old.step_size[..., 0].item() * np.float32(
        network.model.get_layer("project").input.node.layer.step_size
    )
    np.testing.assert_allclose(bias[0] - before[0], 100 * steps, rtol=1e-4)
    np.testing.assert_array_equal(bias[2:], before[2:])
    np.testing.assert_array_equal(new.latent, old.latent)


def test_floats_are_those_of_the_file():
    network, content = _exported("float")

    def change(model, tensors):
        weight = _tensor(tensors, "mob/project/Conv2D")
        data = model.buffers[weight.buffer].data.view(np.float32).copy()
        model.buffers[weight.buffer].data = (data + 1).view(np.uint8)

    found = file_network(_copy(network), _changed(content, change))
    for layer in network.model.layers:
        for one, other in zip(
            layer.weights,
            found.model.get_layer(layer.name).weights,
            strict=True,
        ):
            moved = layer.name == "project" and "kernel" in one.name
            np.testing.assert_array_equal(one + moved, other)


def _renamed(model, tensors):
    _tensor(tensors, "project").name = b"elsewhere"


def _twice(model, tensors):
    _tensor(tensors, "depth1").name = b"project"


def _level_too_high(model, tensors):
    buffer = model.buffers[_tensor(tensors, "project").buffer]
    buffer.data = buffer.data | np.uint8(64)


def _off_zero(model, tensors):
    _tensor(tensors, "project").quantization.zeroPoint = np.int64([3] * 6)


def _other_channels(model, tensors):
    quantization = _tensor(tensors, "project").quantization
    quantization.quantizedDimension = 3
    quantization.scale = np.float32([1.0] * 12)
    quantization.zeroPoint = np.int64([0] * 12)


def _other_shape(model, tensors):
    weight = _tensor(tensors, "project")
    weight.shape = weight.shape[[3, 1, 2, 0]]
    weight.quantization.quantizedDimension = 3


def _short(model, tensors):
    buffer = model.buffers[_tensor(tensors, "project").buffer]
    buffer.data = buffer.data[:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, "it holds 'elsewhere', which the run has not"),
        (_twice, "it holds 2 weights of layer 'project', not 1"),
        (_level_too_high, "in the run levels to 7 around 0"),
        (_off_zero, "zero points to 3 there"),
        (_other_channels, "'project' has 12 scales there"),
        (_other_shape, "'project' has a weight of"),
        (_short, "this TensorFlow Lite file is damaged"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, message):
    network, content = _exported("w4a8")
    with pytest.raises(errors.ExportError, match=message):
        file_network(_copy(network), _changed(content, change))


@pytest.mark.parametrize(
    ("of", "file", "message"),
    [
        (
            "w4a8",
            "float",
            "computes layer 'stem' in float, which the run quant",
        ),
        (
            "float",
            "w4a8",
            "integers of layer 'stem', which is float in the run",
        ),
        ("w4a8", "w1a8", "which the run has not"),
        ("affine", "transposed", "the file does not fit the run"),
    ],
)
def test_the_file_of_another_run_is_refused(of, file, message):
    network, _ = _exported(of)
    _, content = _exported(file)
    with pytest.raises(errors.ExportError, match=message):
        file_network(_copy(network), content)


def test_constants_are_those_of_the_file():
    network, content = _exported("attention")

    def change(model, tensors):
        tensor = _tensor(tensors, "position")
        data = model.buffers[tensor.buffer].data.view(np.int8).copy()
        data[5] = 3 if data[5] != 3 else 4
        model.buffers[tensor.buffer].data = data.view(np.uint8)
        tensor.quantization.scale = np.float32(2.0) * tensor.quantization.scale

    found = file_network(_copy(network), _changed(content, change))
    old = network.constant_grids["position"]
    new = found.constant_grids["position"]
    assert np.argwhere((old.levels != new.levels).reshape(-1)) == [[5]]
    np.testing.assert_array_equal(new.step_size, 2.0 * old.step_size)
    (constant,) = found.model.get_layer("position").get_weights()
    np.testing.assert_array_equal(constant, new.values)


def test_a_norm_is_that_of_the_file():
    network, content = _exported("layer_norm")
    ((name, old),) = network.norm_grids.items()

    def change(model, tensors):
        tensor = _tensor(tensors, f"{name}/beta")
        data = model.buffers[tensor.buffer].data.view(np.int64) + 1
        model.buffers[tensor.buffer].data = data.view(np.uint8)

    found = file_network(_copy(network), _changed(content, change))
    new = found.norm_grids[name]
    np.testing.assert_array_equal(new.beta_levels, old.beta_levels + 1)
    gamma, beta = found.model.get_layer(name).get_weights()
    np.testing.assert_array_equal(gamma, old.gamma)
    np.testing.assert_allclose(beta - old.beta, old.beta_step_size)


def test_a_constant_of_another_size_is_refused():
    network, content = _exported("attention")

    def change(model, tensors):
        tensor = _tensor(tensors, "position")
        data = model.buffers[tensor.buffer].data
        model.buffers[tensor.buffer].data = data[:-1]
        tensor.shape = np.array([len(data) - 1], np.int32)
        tensor.shapeSignature = None

    with pytest.raises(errors.ExportError, match="'position' has 221 levels"):
        file_network(_copy(network), _changed(content, change))
