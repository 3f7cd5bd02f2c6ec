import functools

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import resnet18, resnet20, resnet50


@functools.cache
def _small(resnet, **arguments):
    return resnet((32, 32, 3), 6, width=4, **arguments)


@pytest.mark.parametrize(
    ("resnet", "last", "expansion"),
    [(resnet18, [1, 1, 1, 1], 1), (resnet50, [2, 3, 5, 2], 4)],
)
@pytest.mark.parametrize(
    ("stem", "sizes"), [("cifar", [32, 16, 8, 4]), ("imagenet", [8, 4, 2, 1])]
)
def test_resolution_and_width_of_the_stages(
    resnet, last, expansion, stem, sizes
):
    model = _small(resnet, stem=stem)
    for stage, (block, size) in enumerate(zip(last, sizes, strict=True)):
        relu = model.get_layer(f"stage{stage}_block{block}_relu")
        channels = expansion * 4 * 2**stage
        assert tuple(relu.output.shape) == (None, size, size, channels)
    assert model.get_layer("pool").input is relu.output
    assert tuple(model.output.shape) == (None, 6)


@pytest.mark.parametrize(
    ("depth", "millions", "trainable"),
    # table 6 of the paper
    [(20, 0.27, 272_474), (32, 0.46, 466_906), (56, 0.85, 855_770)],
)
def test_resnet20_of_each_depth(depth, millions, trainable):
    model = resnet20((32, 32, 3), 10, depth=depth)
    weights = model.trainable_weights
    assert sum(np.prod(weight.shape) for weight in weights) == trainable
    # the paper's shortcuts have no parameters
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert round((trainable - projections) / 1e6, 2) == millions
    weighted = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
        and not layer.name.endswith("_0_conv")
    ]
    assert len(weighted) == depth
    assert model.name == f"resnet{depth}"


def test_resolution_and_width_of_resnet20():
    model = resnet20((32, 24, 3), 6, width=5)
    for stage, shape in enumerate([(32, 24, 5), (16, 12, 10), (8, 6, 20)]):
        relu = model.get_layer(f"stage{stage}_block2_relu")
        assert tuple(relu.output.shape) == (None, *shape)
    assert model.get_layer("pool").input is relu.output


def test_resnet20_is_shallow_at_will():
    names = [layer.name for layer in resnet20((8, 8, 1), 3, depth=8).layers]
    assert "stage2_block0_add" in names
    assert not [name for name in names if "block1" in name]


def test_basic_blocks_stride_first_and_bottlenecks_in_the_middle():
    def strides(model):
        first = "stage1_block0_"
        return {
            layer.name.removeprefix(first): layer.strides[0]
            for layer in model.layers
            if layer.name.startswith(first) and layer.name.endswith("_conv")
        }

    basic = strides(_small(resnet18, stem="cifar"))
    assert basic == {"1_conv": 2, "2_conv": 1, "0_conv": 2}
    bottleneck = strides(_small(resnet50, stem="cifar"))
    assert bottleneck == {"1_conv": 1, "2_conv": 2, "3_conv": 1, "0_conv": 2}


def test_shortcuts_are_projected_where_the_shape_changes_only():
    def projected(model):
        return [
            layer.name.removesuffix("_0_conv")
            for layer in model.layers
            if layer.name.endswith("_0_conv")
        ]

    later = ["stage1_block0", "stage2_block0", "stage3_block0"]
    assert projected(_small(resnet18, stem="cifar")) == later
    assert projected(_small(resnet20)) == later[:2]
    first = ["stage0_block0"]  # four times the channels
    assert projected(_small(resnet50, stem="cifar")) == first + later


@pytest.mark.parametrize("depth", [-4, 2, 18, 21, 52])
def test_resnet20_has_a_depth_of_6n_plus_2(depth):
    message = rf"^resnet20 needs a depth of 6n \+ 2 \(.*\), not {depth}\.$"
    with pytest.raises(errors.ConfigError, match=message):
        resnet20((32, 32, 3), 6, depth=depth)
