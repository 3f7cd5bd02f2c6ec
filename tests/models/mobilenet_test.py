import functools

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.models import mobilenet_v2


@functools.cache
def _model(stem):
    return mobilenet_v2((64, 32, 3), 7, stem=stem)


def _all(model, kind):
    return [layer for layer in model.layers if type(layer) is kind]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_channels_of_each_stage(stem):
    last = [0, 1, 2, 3, 2, 2, 0]
    channels = [
        _model(stem).get_layer(f"stage{stage}_block{block}_project_bn").output
        for stage, block in enumerate(last)
    ]
    assert [output.shape[-1] for output in channels] == [
        *(16, 24, 32, 64, 96, 160, 320)
    ]


@pytest.mark.parametrize(
    ("stem", "first", "stages"),
    [
        ("cifar", 1, [1, 1, 2, 4, 4, 8, 8]),
        ("imagenet", 2, [2, 4, 8, 16, 16, 32, 32]),
    ],
)
def test_resolution(stem, first, stages):
    def size(layer):
        return tuple(_model(stem).get_layer(layer).output.shape[1:3])

    assert size("stem_relu") == (64 // first, 32 // first)
    for stage, stride in enumerate(stages):
        expected = (64 // stride, 32 // stride)
        assert size(f"stage{stage}_block0_project_bn") == expected
    pooled = _model(stem).get_layer("pool").input.shape
    assert tuple(pooled) == (None, *expected, 1280)
    assert tuple(_model(stem).output.shape) == (None, 7)


def test_stems_have_the_same_parameters():
    cifar, imagenet = (
        [weight.shape for weight in _model(stem).weights]
        for stem in ("cifar", "imagenet")
    )
    assert cifar == imagenet


def test_bottlenecks_are_linear_and_the_rest_is_relu6():
    relus = _all(_model("cifar"), keras.layers.ReLU)
    assert {float(relu.max_value) for relu in relus} == {6.0}
    # 17 depthwise convolutions, 16 expansions, the stem and the last
    assert len(relus) == 17 + 16 + 2
    assert not [relu for relu in relus if "project" in relu.name]


def test_blocks_that_keep_the_shape_have_a_shortcut():
    assert [add.name for add in _all(_model("cifar"), keras.layers.Add)] == [
        *("stage1_block1_add", "stage2_block1_add", "stage2_block2_add"),
        *("stage3_block1_add", "stage3_block2_add", "stage3_block3_add"),
        *("stage4_block1_add", "stage4_block2_add"),
        *("stage5_block1_add", "stage5_block2_add"),
    ]


def test_expansion_is_sixfold_but_in_the_first_block():
    depthwise = _all(_model("cifar"), keras.layers.DepthwiseConv2D)
    channels = [layer.depthwise_kernel.shape[2] for layer in depthwise]
    counts = {16: 1, 24: 2, 32: 3, 64: 4, 96: 3, 160: 3}
    inputs = [width for width, count in counts.items() for _ in range(count)]
    assert channels == [32, *(6 * width for width in inputs)]
    assert {layer.kernel_size for layer in depthwise} == {(3, 3)}


def test_depthwise_kernels_start_at_the_deviation_of_he():
    layer = _model("cifar").get_layer("stage5_block2_depthwise_conv")
    kernel = layer.depthwise_kernel.numpy()
    assert kernel.shape == (3, 3, 960, 1)
    assert kernel.std() == pytest.approx(np.sqrt(2 / 9), rel=0.05)


@pytest.mark.parametrize(
    ("alpha", "stem", "last", "trainable"),
    # the sizes of tf_keras.applications
    [
        (0.35, 16, 1280, 1_677_128),  # 8 would be less than 90 % of 11.2
        (1.4, 48, 1792, 6_108_776),
    ],
)
def test_alpha_scales_to_multiples_of_8(alpha, stem, last, trainable):
    model = mobilenet_v2((8, 8, 3), 1000, alpha=alpha)
    assert model.get_layer("stem_conv").filters == stem
    assert model.get_layer("last_conv").filters == last
    weights = model.trainable_weights
    assert sum(np.prod(weight.shape) for weight in weights) == trainable


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_alpha_is_positive(alpha):
    message = f"^mobilenet_v2 needs a finite alpha above 0, not {alpha}\\.$"
    with pytest.raises(errors.ConfigError, match=message):
        mobilenet_v2((8, 8, 1), 3, alpha=alpha)
